// What `weft launch` starts: pure functions from what the user asked and what the host has to a command line.
#pragma once
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "launcher/options.hpp"
#include "launcher/topology.hpp"

namespace weft {

/// What decides how ranks are started, apart from the options.
struct Surroundings {
  Topology topology;
  bool root = false;
  bool has_mpi = true;                           ///< this build has MPI; without it one rank runs, by itself
  int terminal_columns = 0;                      ///< of this process's standard error; 0: no terminal
  bool srun_with_pmix = false;                   ///< `srun --mpi=list` names pmix
  std::map<std::string, std::string> variables;  ///< the environment
  std::string job;                               ///< a name for this launch, "weft-<pid>"

  bool has(const std::string& name) const { return variables.contains(name); }
};

Surroundings look_around();

struct LaunchPlan {
  std::vector<std::string> arguments;            ///< starter first
  std::map<std::string, std::string> variables;  ///< added to the environment
  int ranks = 0;
  bool local = true;       ///< all ranks on this host
  bool alone = false;      ///< the program is the one rank, which nothing else starts
};

/// `program`: the rank's command line. Throws UserError for ranks or cores that this host has not, and for a missing
/// hostfile.
LaunchPlan plan_launch(const LaunchOptions& options, const Surroundings& around,
                       const std::vector<std::string>& program);

}  // namespace weft
