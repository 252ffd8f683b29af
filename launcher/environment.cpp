#include "launcher/environment.hpp"

#include <algorithm>
#include <charconv>
#include <cstdlib>

namespace weft {
namespace {

std::optional<int> number(const char* name) {
  const auto text = environment(name);
  if (!text) return std::nullopt;
  int value = 0;
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  return error == std::errc() && end != text->data() ? std::optional(value) : std::nullopt;
}

struct Variables {
  const char* starter;
  const char* rank;
  const char* size;
  const char* local_rank;
  const char* local_size;
  const char* node;  ///< where local_size is a list with an entry a node: which of them is this one; else null
};

constexpr Variables starters[] = {
    {"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE", nullptr},
    {"mpiexec", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS", nullptr},
    {"srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE", "SLURM_NODEID"},
};

int local_size_of(const Variables& names) {
  if (!names.node) return number(names.local_size).value_or(1);
  const auto list = environment(names.local_size);
  const auto node = number(names.node);
  return list && node ? tasks_on_node(*list, *node).value_or(1) : 1;
}

}  // namespace

std::optional<std::string> environment(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? std::optional<std::string>(value) : std::nullopt;
}

std::optional<int> tasks_on_node(std::string_view list, int node) {
  while (!list.empty()) {
    const std::string_view entry = list.substr(0, list.find(','));
    list.remove_prefix(std::min(entry.size() + 1, list.size()));
    int tasks = 0, nodes = 1;
    const char* end = entry.data() + entry.size();
    const auto [stop, error] = std::from_chars(entry.data(), end, tasks);
    if (error != std::errc()) return std::nullopt;
    if (end - stop > 2 && stop[0] == '(' && stop[1] == 'x') std::from_chars(stop + 2, end, nodes);
    if (node < nodes) return tasks;
    node -= nodes;
  }
  return std::nullopt;
}

RankEnvironment rank_environment() {
  for (const Variables& names : starters) {
    const auto rank = number(names.rank);
    const auto size = number(names.size);
    // A batch script itself has SLURM_PROCID but no step of tasks.
    if (!rank || !size || (std::string_view(names.starter) == "srun" && !number("SLURM_STEP_ID"))) continue;
    return {names.starter, names.rank, *rank, *size, number(names.local_rank).value_or(0),
            local_size_of(names)};
  }
  return {};
}

}  // namespace weft
