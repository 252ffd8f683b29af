#include "launcher/placement.hpp"

#include <sched.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "core/base/error.hpp"
#include "core/base/log.hpp"

namespace weft {
namespace {

int to_int(const std::optional<std::string>& text) { return text ? std::atoi(text->c_str()) : 0; }

std::vector<int> node_order(const Topology& topology) {
  std::vector<int> nodes;
  for (const CoreInfo& core : topology.cores)
    if (std::ranges::find(nodes, core.numa) == nodes.end()) nodes.push_back(core.numa);
  return nodes;
}

}  // namespace

int default_ranks(const Topology& topology) {
  if (!topology.gpus.empty()) return static_cast<int>(topology.gpus.size());
  return topology.cores.size() >= 2 ? 2 : 1;
}

std::vector<RankPlacement> place_ranks(const Topology& topology, int ranks, int cores_per_rank) {
  const int cores = static_cast<int>(topology.cores.size());
  WEFT_CHECK(ranks > 0 && cores > 0, "{} ranks, {} cores", ranks, cores);
  std::vector<RankPlacement> placements(static_cast<std::size_t>(ranks));
  const int gpus = static_cast<int>(topology.gpus.size());
  for (int r = 0; r < ranks && gpus > 0; ++r) placements[static_cast<std::size_t>(r)].gpu = r % gpus;
  if (cores_per_rank == 0 && ranks > cores) return placements;
  const int share = cores_per_rank > 0 ? cores_per_rank : cores / ranks;
  if (static_cast<std::int64_t>(share) * ranks > cores)
    fail_user("--cores-per-rank: found {}, expected at most {} ({} ranks on {} cores)", cores_per_rank, cores / ranks,
              ranks, cores);

  const std::vector<int> nodes = node_order(topology);
  std::vector<bool> taken(static_cast<std::size_t>(cores), false);
  const auto take_from = [&](RankPlacement& placement, int node, bool any) {
    for (std::size_t c = 0; c < taken.size() && placement.cores < share; ++c) {
      const CoreInfo& core = topology.cores[c];
      if (taken[c] || (!any && core.numa != node)) continue;
      taken[c] = true;
      placement.cpus.insert(placement.cpus.end(), core.cpus.begin(), core.cpus.end());
      placement.numa = placement.cores == 0 || placement.numa == core.numa ? core.numa : -1;
      ++placement.cores;
    }
  };
  const auto preferred = [&](int rank) {
    const RankPlacement& placement = placements[static_cast<std::size_t>(rank)];
    const int beside = placement.gpu < 0 ? -1 : topology.gpus[static_cast<std::size_t>(placement.gpu)].numa;
    if (std::ranges::find(nodes, beside) != nodes.end()) return beside;
    return nodes[static_cast<std::size_t>(rank) * nodes.size() / static_cast<std::size_t>(ranks)];
  };
  // Every rank takes what its own node has before anybody takes the rest of another.
  for (int r = 0; r < ranks; ++r) take_from(placements[static_cast<std::size_t>(r)], preferred(r), false);
  for (RankPlacement& placement : placements) take_from(placement, -1, true);
  return placements;
}

void bind_this_rank(const RankEnvironment& rank) {
  const auto cores_per_rank = environment(launch_variable::cores_per_rank);
  if (!cores_per_rank || *cores_per_rank == "0") return;
  const Topology topology = read_topology();
  const int cores = *cores_per_rank == launch_variable::equal_share ? 0 : to_int(cores_per_rank);
  const auto placements = place_ranks(topology, std::max({1, rank.local_size, rank.local_rank + 1}), cores);
  const std::vector<int>& cpus = placements.at(static_cast<std::size_t>(rank.local_rank)).cpus;
  if (cpus.empty()) return;
  const auto most = static_cast<std::size_t>(*std::ranges::max_element(cpus)) + 1;
  cpu_set_t* set = CPU_ALLOC(most);
  CPU_ZERO_S(CPU_ALLOC_SIZE(most), set);
  for (const int cpu : cpus) CPU_SET_S(static_cast<std::size_t>(cpu), CPU_ALLOC_SIZE(most), set);
  if (sched_setaffinity(0, CPU_ALLOC_SIZE(most), set) != 0)
    log_warning("rank {} cannot be bound to CPUs {}", rank.rank, format_cpus(cpus));
  CPU_FREE(set);
}

int default_threads(const RankEnvironment& rank) {
  if (const int asked = to_int(environment("OMP_NUM_THREADS")); asked > 0) return asked;
  const Topology topology = read_topology();
  const int cores = std::max(1, static_cast<int>(topology.cores.size()));
  const bool bound = cores < topology.machine_cores;
  int threads = bound ? cores : std::max(1, cores / std::max(1, rank.local_size));
  if (const auto limit = read_group_limits().cpus) {
    const double share = *limit / std::max(1, rank.local_size);
    threads = std::clamp(static_cast<int>(std::ceil(share)), 1, threads);
  }
  return threads;
}

}  // namespace weft
