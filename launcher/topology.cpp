#include "launcher/topology.hpp"

#include <fmt/format.h>
#include <hwloc.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <memory>
#include <sstream>

#include "core/base/error.hpp"

namespace weft {
namespace {

struct TopologyDeleter {
  void operator()(hwloc_topology* topology) const { hwloc_topology_destroy(topology); }
};
using TopologyHandle = std::unique_ptr<hwloc_topology, TopologyDeleter>;

TopologyHandle load_topology() {
  hwloc_topology_t raw = nullptr;
  if (hwloc_topology_init(&raw) != 0) fail("hwloc cannot start");
  TopologyHandle topology(raw);
  if (hwloc_topology_load(raw) != 0) fail("hwloc cannot read this host's topology");
  return topology;
}

std::string read_line(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::vector<std::filesystem::path> entries(const std::filesystem::path& folder) {
  std::vector<std::filesystem::path> result;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(folder, error)) result.push_back(entry.path());
  std::ranges::sort(result);
  return result;
}

}  // namespace

std::vector<int> current_cpus() {
  std::vector<int> cpus;
  // Larger than the mask of any kernel.
  constexpr int most = 1 << 14;
  cpu_set_t* set = CPU_ALLOC(most);
  if (sched_getaffinity(0, CPU_ALLOC_SIZE(most), set) == 0)
    for (int cpu = 0; cpu < most; ++cpu)
      if (CPU_ISSET_S(static_cast<std::size_t>(cpu), CPU_ALLOC_SIZE(most), set)) cpus.push_back(cpu);
  CPU_FREE(set);
  return cpus;
}

Topology read_topology() {
  const TopologyHandle handle = load_topology();
  hwloc_topology* const topology = handle.get();
  const std::vector<int> allowed = current_cpus();
  Topology result;
  result.machine_cores = hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_CORE);
  result.numa_nodes = std::max(1, hwloc_get_nbobjs_by_type(topology, HWLOC_OBJ_NUMANODE));
  // Virtual machines may show hardware threads and no cores.
  const hwloc_obj_type_t kind = result.machine_cores > 0 ? HWLOC_OBJ_CORE : HWLOC_OBJ_PU;
  result.machine_cores = hwloc_get_nbobjs_by_type(topology, kind);
  for (int i = 0; i < result.machine_cores; ++i) {
    const hwloc_obj_t object = hwloc_get_obj_by_type(topology, kind, static_cast<unsigned>(i));
    CoreInfo core;
    for (int cpu = hwloc_bitmap_first(object->cpuset); cpu >= 0; cpu = hwloc_bitmap_next(object->cpuset, cpu))
      if (std::ranges::find(allowed, cpu) != allowed.end()) core.cpus.push_back(cpu);
    core.numa = std::max(0, hwloc_bitmap_first(object->nodeset));
    if (!core.cpus.empty()) result.cores.push_back(core);
  }
  result.memory_bytes =
      static_cast<std::uint64_t>(::sysconf(_SC_PHYS_PAGES)) * static_cast<std::uint64_t>(::sysconf(_SC_PAGESIZE));
  const hwloc_obj_t package = hwloc_get_obj_by_type(topology, HWLOC_OBJ_PACKAGE, 0);
  const char* model = package ? hwloc_obj_get_info_by_name(package, "CPUModel") : nullptr;
  result.cpu_model = model ? model : "unknown processor";
  result.gpus = read_gpus();
  return result;
}

std::vector<GpuInfo> read_gpus(const std::filesystem::path& root) {
  std::vector<GpuInfo> gpus;
  // Without the driver's own entry the card may be there and yet not be usable.
  for (const auto& entry : entries(root / "proc/driver/nvidia/gpus")) {
    GpuInfo gpu{entry.filename().string(), -1};
    const std::string numa = read_line(root / "sys/bus/pci/devices" / gpu.pci / "numa_node");
    std::istringstream(numa) >> gpu.numa;
    gpus.push_back(gpu);
  }
  return gpus;
}

GroupLimits read_group_limits(const std::filesystem::path& root) {
  GroupLimits limits;
  const auto narrow_cpus = [&](double cpus) { limits.cpus = std::min(limits.cpus.value_or(cpus), cpus); };
  const auto narrow_memory = [&](std::uint64_t bytes) {
    // Version 1 says "no limit" by a number near 2⁶³.
    if (bytes < (std::uint64_t{1} << 60)) limits.memory_bytes = std::min(limits.memory_bytes.value_or(bytes), bytes);
  };
  const auto read_number = [](const std::filesystem::path& path) -> std::optional<double> {
    std::istringstream line(read_line(path));
    double value = 0;
    return line >> value ? std::optional(value) : std::nullopt;
  };
  std::ifstream groups(root / "proc/self/cgroup");
  std::string line;
  while (std::getline(groups, line)) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first + 1);
    if (first == std::string::npos || second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    const std::string mount = controllers.empty()                               ? "sys/fs/cgroup"
                              : controllers.find("memory") != std::string::npos ? "sys/fs/cgroup/memory"
                              : controllers.find("cpu") != std::string::npos    ? "sys/fs/cgroup/cpu"
                                                                                : "";
    if (mount.empty()) continue;
    // Every group up to the root limits; inside a container the own path may be that of the host, so that only the root
    // shows.
    for (std::filesystem::path group = line.substr(second + 2);; group = group.parent_path()) {
      const std::filesystem::path folder = root / mount / group;
      std::istringstream quota(read_line(folder / "cpu.max"));
      double most = 0, period = 0;
      if (quota >> most >> period && period > 0) narrow_cpus(most / period);
      if (const auto bytes = read_number(folder / "memory.max")) narrow_memory(static_cast<std::uint64_t>(*bytes));
      const auto old_quota = read_number(folder / "cpu.cfs_quota_us");
      const auto old_period = read_number(folder / "cpu.cfs_period_us");
      if (old_quota && old_period && *old_quota > 0 && *old_period > 0) narrow_cpus(*old_quota / *old_period);
      if (const auto bytes = read_number(folder / "memory.limit_in_bytes"))
        narrow_memory(static_cast<std::uint64_t>(*bytes));
      if (group.empty() || group == "/") break;
    }
  }
  return limits;
}

std::string format_cpus(std::vector<int> cpus) {
  std::ranges::sort(cpus);
  std::string text;
  for (std::size_t i = 0; i < cpus.size();) {
    std::size_t j = i;
    while (j + 1 < cpus.size() && cpus[j + 1] == cpus[j] + 1) ++j;
    text += fmt::format("{}{}", text.empty() ? "" : ",", cpus[i]);
    if (j > i) text += fmt::format("-{}", cpus[j]);
    i = j + 1;
  }
  return text;
}

}  // namespace weft
