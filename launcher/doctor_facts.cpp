#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <fstream>
#include <memory>
#include <sstream>

#include "launcher/doctor.hpp"
#include "launcher/placement.hpp"
#include "launcher/processes.hpp"

namespace weft {
namespace {

constexpr std::array<std::string_view, 8> useful_flags = {"avx2",        "fma",      "avx512f",  "avx512_vnni",
                                                          "avx512_bf16", "amx_tile", "amx_bf16", "amx_int8"};

std::string first_line(const char* path) {
  std::ifstream file(path);
  std::string line;
  std::getline(file, line);
  return line;
}

std::vector<std::string> processor_flags() {
  std::ifstream file("/proc/cpuinfo");
  std::vector<std::string> found;
  for (std::string line; std::getline(file, line);) {
    if (!line.starts_with("flags")) continue;
    std::istringstream words(line);
    std::vector<std::string> all;
    for (std::string word; words >> word;) all.push_back(word);
    for (const std::string_view flag : useful_flags)
      if (std::ranges::find(all, flag) != all.end()) found.emplace_back(flag);
    break;
  }
  return found;
}

std::vector<std::string> find_starters() {
  std::vector<std::string> found;
  for (const char* name : {"mpirun", "mpiexec", "srun"}) {
    std::istringstream folders(environment("PATH").value_or(""));
    for (std::string folder; std::getline(folders, folder, ':');) {
      const std::string path = folder + "/" + name;
      if (::access(path.c_str(), X_OK) != 0) continue;
      found.push_back(path);
      break;
    }
  }
  return found;
}

// The interface of the default route.
std::string default_interface() {
  std::ifstream file("/proc/net/route");
  std::string line;
  std::getline(file, line);
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string interface, destination;
    if (words >> interface >> destination && destination == "00000000") return interface;
  }
  return "none";
}

// InfiniBand where there is one (beside the rank's node if possible), else what Open MPI was told, else the default
// route.
std::string network_of(int numa) {
  std::string any;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/sys/class/infiniband", error)) {
    const std::string name = entry.path().filename();
    int node = -1;
    std::istringstream(first_line((entry.path() / "device/numa_node").c_str())) >> node;
    if (any.empty() || (numa >= 0 && node == numa)) any = name;
  }
  if (!any.empty()) return any;
  if (const auto told = environment("OMPI_MCA_btl_tcp_if_include")) return *told;
  return default_interface();
}

bool pmix_in_srun() {
  struct Closer {
    void operator()(std::FILE* file) const { ::pclose(file); }
  };
  const std::unique_ptr<std::FILE, Closer> pipe(::popen("srun --mpi=list 2>&1", "r"));
  char buffer[256];
  bool found = false;
  while (pipe && std::fgets(buffer, sizeof buffer, pipe.get()))
    found |= std::string_view(buffer).find("pmix") != std::string_view::npos;
  return found;
}

}  // namespace

HostFacts read_host_facts() {
  HostFacts facts;
  facts.host = host_name();
  facts.topology = read_topology();
  facts.limits = read_group_limits();
  facts.isa = processor_flags();
  std::istringstream(first_line("/proc/loadavg")) >> facts.load;
  facts.governor = first_line("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor");
  struct statvfs shared {};
  if (::statvfs("/dev/shm", &shared) == 0) facts.shared_memory_bytes = std::uint64_t{shared.f_bavail} * shared.f_frsize;
  facts.starters = find_starters();
  facts.slurm_job = environment("SLURM_JOB_ID").has_value();
  facts.srun_pmix = facts.slurm_job && pmix_in_srun();
  return facts;
}

RankFacts read_rank_facts(const RankEnvironment& rank) {
  const Topology topology = read_topology();
  RankFacts facts;
  facts.rank = rank.rank;
  facts.host = host_name();
  facts.cpus = current_cpus();
  facts.cores = static_cast<int>(topology.cores.size());
  facts.host_cores = topology.machine_cores;
  facts.numa_nodes = topology.numa_nodes;
  const bool one_node = std::ranges::all_of(
      topology.cores, [&](const CoreInfo& core) { return core.numa == topology.cores.front().numa; });
  facts.numa = one_node && !topology.cores.empty() ? topology.cores.front().numa : -1;
  if (!topology.gpus.empty()) {
    const GpuInfo& gpu = topology.gpus[static_cast<std::size_t>(rank.local_rank) % topology.gpus.size()];
    facts.gpu = gpu.pci;
    facts.gpu_numa = gpu.numa;
  }
  facts.threads = default_threads(rank);
  facts.network = network_of(facts.numa);
  return facts;
}

std::vector<RankFacts> planned_ranks(const HostFacts& host) {
  const Topology& topology = host.topology;
  const int ranks = default_ranks(topology);
  const auto placements = place_ranks(topology, ranks, 0);
  std::vector<RankFacts> result;
  for (int r = 0; r < ranks; ++r) {
    const RankPlacement& placement = placements[static_cast<std::size_t>(r)];
    RankFacts facts{.rank = r,
                    .host = host.host,
                    .cpus = placement.cpus,
                    .cores = placement.cores,
                    .host_cores = topology.machine_cores,
                    .numa = placement.numa,
                    .numa_nodes = topology.numa_nodes,
                    .gpu = {},
                    .threads = std::max(1, placement.cores),
                    .network = network_of(placement.numa)};
    if (placement.gpu >= 0) {
      facts.gpu = topology.gpus[static_cast<std::size_t>(placement.gpu)].pci;
      facts.gpu_numa = topology.gpus[static_cast<std::size_t>(placement.gpu)].numa;
    }
    result.push_back(facts);
  }
  return result;
}

}  // namespace weft
