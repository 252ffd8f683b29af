// Runs a launch plan: starts it, watches over it, passes signals on, cleans up after it.
#pragma once
#include <filesystem>
#include <string>

#include "launcher/commands.hpp"
#include "launcher/launch_output.hpp"
#include "launcher/launch_plan.hpp"

namespace weft {

/// How long ranks that were told to stop are waited for.
struct StopPatience {
  double seconds = 60;           ///< without a sign that they go on
  std::filesystem::path flight;  ///< folder of the ranks' flight records, which show the signs; empty: there are none
};

/// INT, TERM, HUP and USR1 to this process become one USR1 to each rank, as soon as that rank listens; a second INT or
/// TERM, or the end of patience, kills them. A rank that comes to another step, phase or collective is waited for anew,
/// and while one reads or writes files it has file_allowance_seconds. Nothing of the job is left when it returns. Says one line about a
/// rank that was killed. Throws Error when the starter cannot be run.
ExitStatus run_plan(const LaunchPlan& plan, const StopPatience& patience);

/// The promised status for what waitpid said of the starter.
ExitStatus map_status(int wait_status);
/// Why it is ExitStatus::failed where the ranks cannot have said so themselves; empty otherwise.
std::string explain_status(int wait_status, const std::string& starter, const std::optional<KilledRank>& killed);

}  // namespace weft
