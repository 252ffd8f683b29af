// What this host has: cores, NUMA nodes, GPUs, memory; as far as this process may use them.
#pragma once
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace weft {

struct CoreInfo {
  std::vector<int> cpus;  ///< the system's numbers of its hardware threads
  int numa = 0;           ///< the system's number of its NUMA node
};

struct GpuInfo {
  std::string pci;  ///< "0000:41:00.0"
  int numa = -1;    ///< -1: the system does not say
};

struct Topology {
  std::vector<CoreInfo> cores;  ///< that this process may use, neighbours beside each other
  int machine_cores = 0;        ///< all cores of the host
  int numa_nodes = 1;
  std::vector<GpuInfo> gpus;
  std::string cpu_model;
  std::uint64_t memory_bytes = 0;
};

/// By hwloc; throws Error when that fails.
Topology read_topology();

/// NVIDIA GPUs that have a driver, in PCI order. `root` stands for "/" (tests).
std::vector<GpuInfo> read_gpus(const std::filesystem::path& root = "/");

/// What the control group grants this process.
struct GroupLimits {
  std::optional<double> cpus;
  std::optional<std::uint64_t> memory_bytes;
};
/// Versions 1 and 2. `root` stands for "/" (tests).
GroupLimits read_group_limits(const std::filesystem::path& root = "/");

/// "0-3,8" for {0,1,2,3,8}.
std::string format_cpus(std::vector<int> cpus);

/// The CPUs that this process may run on now.
std::vector<int> current_cpus();

}  // namespace weft
