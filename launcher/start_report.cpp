#include "launcher/start_report.hpp"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>

#include "launcher/processes.hpp"
#include "parallel/comm/heartbeat.hpp"

namespace weft {
namespace {

std::string program_of(pid_t process) {
  std::error_code error;
  return std::filesystem::read_symlink("/proc/" + std::to_string(process) + "/exe", error).string();
}

std::string problem_of(const StartingRank& rank) {
  switch (rank.state) {
    case 'T': return "is stopped";
    case 't': return "is held by a debugger";
    case 'D': return "waits for a device or a file system";
    case 'Z': return "has ended";
    default: return "has not come to the start of MPI";
  }
}

}  // namespace

std::vector<StartingRank> starting_ranks(const RankEnvironment& self) {
  if (self.alone()) return {};
  const auto job = environment(job_variable);
  const pid_t parent = ::getppid();
  const std::string program = program_of(::getpid());
  std::map<int, StartingRank> found;
  for (const pid_t process : job ? all_processes() : children_of(parent)) {
    const auto rank = variable_of(process, self.rank_variable);
    if (!rank || (job && variable_of(process, job_variable) != job)) continue;
    const StartingRank here{std::atoi(rank->c_str()), process, state_of(process), has_thread(process, start_thread_name)};
    // A script may stand between the starter and the rank.
    if (const auto [place, first] = found.emplace(here.rank, here); !first && program_of(process) == program)
      place->second = here;
  }
  std::vector<StartingRank> ranks;
  for (const auto& [number, rank] : found) ranks.push_back(rank);
  return ranks;
}

std::string start_report(const RankEnvironment& self, std::string_view host, std::span<const StartingRank> ranks) {
  std::string text;
  for (const StartingRank& rank : ranks)
    if (!rank.ready())
      text += fmt::format("{}rank {} (host {}, pid {}) {}", text.empty() ? "" : ", ", rank.rank, host, rank.pid,
                          problem_of(rank));
  if (!text.empty()) return text;
  if (std::ssize(ranks) == self.size) return fmt::format("all {} wait for each other in the start of MPI", self.size);
  std::vector<int> here;
  for (const StartingRank& rank : ranks) here.push_back(rank.rank);
  return fmt::format("{} of host {} {} there; of the other {} some are stopped, dead or cut off", ranks_text(here), host,
                     here.size() == 1 ? "is" : "are", self.size - std::ssize(ranks));
}

bool speaks_for_host(const RankEnvironment& self, std::span<const StartingRank> ranks) {
  const auto first = std::ranges::find_if(ranks, &StartingRank::ready);
  if (first != ranks.end() && first->rank != self.rank) return false;
  return self.rank < 2 || !std::ranges::all_of(ranks, &StartingRank::ready);
}

}  // namespace weft
