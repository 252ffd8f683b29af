#include "launcher/environment.hpp"

#include <charconv>
#include <cstdlib>

namespace weft {
namespace {

std::optional<int> number(const char* name) {
  const auto text = environment(name);
  if (!text) return std::nullopt;
  int value = 0;
  // Slurm writes lists such as "2(x3),1": the first number is this host's where hosts are alike.
  const auto [end, error] = std::from_chars(text->data(), text->data() + text->size(), value);
  return error == std::errc() && end != text->data() ? std::optional(value) : std::nullopt;
}

struct Variables {
  const char* starter;
  const char* rank;
  const char* size;
  const char* local_rank;
  const char* local_size;
};

constexpr Variables starters[] = {
    {"mpirun", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE"},
    {"mpiexec", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"},
    {"srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"},
};

}  // namespace

std::optional<std::string> environment(const char* name) {
  const char* value = std::getenv(name);
  return value && *value ? std::optional<std::string>(value) : std::nullopt;
}

RankEnvironment rank_environment() {
  for (const Variables& names : starters) {
    const auto rank = number(names.rank);
    const auto size = number(names.size);
    // A batch script itself has SLURM_PROCID but no step of tasks.
    if (!rank || !size || (std::string_view(names.starter) == "srun" && !number("SLURM_STEP_ID"))) continue;
    return {names.starter, names.rank, *rank, *size, number(names.local_rank).value_or(0), number(names.local_size).value_or(1)};
  }
  return {};
}

}  // namespace weft
