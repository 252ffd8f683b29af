// The environment variables that Weft reads; nothing else in the tree does.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

namespace weft {

/// Nothing where it is not set or empty.
std::optional<std::string> environment(const char* name);

/// Who started this process as a rank, as its variables say, before MPI is up.
struct RankEnvironment {
  std::string starter;  ///< "mpirun", "srun", "mpiexec", or empty: alone
  std::string rank_variable;  ///< the name of the one that `rank` comes from
  int rank = 0;
  int size = 1;
  int local_rank = 0;  ///< among the ranks of this host
  int local_size = 1;

  bool alone() const { return starter.empty(); }
};

RankEnvironment rank_environment();

/// Slurm's list of tasks, "2(x3),1": how many there are on the node of that number; nothing where the list ends before it.
std::optional<int> tasks_on_node(std::string_view list, int node);

/// Names the job that a rank belongs to; PMIx sets it (Open MPI, srun --mpi=pmix), other starters may not.
inline constexpr const char* job_variable = "PMIX_NAMESPACE";

/// What `weft launch` tells its ranks.
namespace launch_variable {
inline constexpr const char* cores_per_rank = "WEFT_CORES_PER_RANK";  ///< bind to this many cores; 0: do not bind; share: see below
inline constexpr const char* equal_share = "share";  ///< of the host's cores, however many ranks the host has
inline constexpr const char* terminal_columns = "WEFT_TERMINAL_COLUMNS";
inline constexpr const char* job = "WEFT_JOB";  ///< a name that all processes of one launch share
}  // namespace launch_variable

}  // namespace weft
