// What `weft doctor` knows of hosts and ranks, and the traps that it sees in them.
#pragma once
#include <cstdint>
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "launcher/environment.hpp"
#include "launcher/topology.hpp"

namespace weft {

struct HostFacts {
  std::string host;
  Topology topology;
  GroupLimits limits;
  std::vector<std::string> isa;           ///< of the processor's flags those that kernels use
  double load = 0;                        ///< processes that computed or waited for a core, mean of the last minute
  std::string governor;                   ///< of CPU 0; empty: not said
  std::uint64_t shared_memory_bytes = 0;  ///< free in /dev/shm
  std::vector<std::string> starters;      ///< paths of mpirun, mpiexec and srun
  bool slurm_job = false;
  bool srun_pmix = false;
};

struct RankFacts {
  int rank = 0;
  std::string host;
  std::vector<int> cpus;
  int cores = 0;       ///< physical, of `cpus`
  int host_cores = 0;  ///< of the whole host
  int numa = -1;       ///< -1: on several nodes
  int numa_nodes = 1;
  std::string gpu;  ///< PCI address
  int gpu_numa = -1;
  int threads = 1;
  std::string network;

  bool bound() const { return cores < host_cores; }
};

struct Rates {
  double f32_gflops = 0;   ///< matrix products of this rank
  double bf16_gflops = 0;  ///< 0: the processor has no instructions for them
  double copy_gb_per_s = 0;
  std::optional<double> all_reduce_gb_per_s;  ///< bus bandwidth, with several ranks
};

enum class Severity : std::uint8_t { note, trap };

struct Finding {
  Severity severity = Severity::trap;
  std::string what;
  std::string advice;
};

HostFacts read_host_facts();
/// Of this process.
RankFacts read_rank_facts(const RankEnvironment& rank);
/// What `weft launch` would give its ranks here.
std::vector<RankFacts> planned_ranks(const HostFacts& host);

/// Pure: all that is wrong with these ranks (of all hosts) and this host.
std::vector<Finding> diagnose(const HostFacts& host, const std::vector<RankFacts>& ranks);

nlohmann::json to_json(const HostFacts& host);
nlohmann::json to_json(const RankFacts& rank);
nlohmann::json to_json(const Rates& rates);
nlohmann::json to_json(const Finding& finding);
RankFacts rank_from_json(const nlohmann::json& json);

/// The table of ranks: rank, host, GPU, NUMA node, CPUs, threads, network.
std::string format_ranks(const std::vector<RankFacts>& ranks);

}  // namespace weft
