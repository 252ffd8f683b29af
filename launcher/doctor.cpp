#include "launcher/doctor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <nlohmann/json.hpp>

namespace weft {
namespace {

using nlohmann::json;

using ByHost = std::map<std::string, std::vector<const RankFacts*>>;

void add(std::vector<Finding>& findings, std::string what, std::string advice) {
  findings.push_back({Severity::trap, std::move(what), std::move(advice)});
}

bool overlap(const RankFacts& a, const RankFacts& b) {
  return std::ranges::any_of(a.cpus, [&](int cpu) { return std::ranges::find(b.cpus, cpu) != b.cpus.end(); });
}

void check_sharing(std::vector<Finding>& findings, const std::string& host,
                   const std::vector<const RankFacts*>& ranks) {
  for (std::size_t i = 0; i < ranks.size(); ++i) {
    for (std::size_t j = i + 1; j < ranks.size(); ++j) {
      if (!ranks[i]->bound() || !ranks[j]->bound() || !overlap(*ranks[i], *ranks[j])) continue;
      const bool all = std::ranges::all_of(ranks, [&](const RankFacts* rank) { return rank->cpus == ranks[0]->cpus; });
      if (all)
        add(findings,
            fmt::format("all {} ranks on {} are bound to CPUs {}", ranks.size(), host, format_cpus(ranks[0]->cpus)),
            "start them with `weft launch`, or `mpirun --bind-to none`");
      else
        add(findings, fmt::format("ranks {} and {} on {} share cores", ranks[i]->rank, ranks[j]->rank, host),
            "start them with `weft launch`");
      return;
    }
  }
}

void check_host_ranks(std::vector<Finding>& findings, const std::string& host,
                      const std::vector<const RankFacts*>& ranks) {
  const int cores = ranks.front()->host_cores;
  check_sharing(findings, host, ranks);
  if (static_cast<int>(ranks.size()) > cores)
    add(findings, fmt::format("{} ranks on the {} cores of {}", ranks.size(), cores, host),
        "start no more ranks than cores");
  int threads = 0;
  for (const RankFacts* rank : ranks) {
    threads += rank->threads;
    const int own = rank->cores > 0 ? rank->cores : cores;
    if (rank->threads > own)
      add(findings,
          fmt::format("rank {} computes with {} threads on {} core{}", rank->rank, rank->threads, own,
                      own == 1 ? "" : "s"),
          "set OMP_NUM_THREADS or --threads to its cores, or give it more: `weft launch --cores-per-rank C`");
    if (rank->numa_nodes > 1 && rank->numa < 0 && ranks.size() > 1)
      add(findings, fmt::format("rank {} may run on several NUMA nodes of {}", rank->rank, host),
          "bind it: `weft launch` does, so does `mpirun --map-by numa --bind-to numa`");
    if (rank->gpu_numa >= 0 && rank->numa >= 0 && rank->gpu_numa != rank->numa)
      add(findings,
          fmt::format("rank {} sits on NUMA node {}, its GPU {} on node {}", rank->rank, rank->numa, rank->gpu,
                      rank->gpu_numa),
          "start it with `weft launch`, which puts ranks beside their GPUs");
  }
  const bool each_fits =
      std::ranges::all_of(ranks, [&](const RankFacts* rank) { return rank->threads <= std::max(1, rank->cores); });
  if (each_fits && ranks.size() > 1 && threads > std::max<int>(cores, static_cast<int>(ranks.size())))
    add(findings, fmt::format("{} threads in all compute on the {} cores of {}", threads, cores, host),
        "set OMP_NUM_THREADS so that ranks times threads is the number of cores");
}

void check_host(std::vector<Finding>& findings, const HostFacts& host, std::size_t ranks) {
  constexpr double mib = 0x1p20;
  const double shared = static_cast<double>(host.shared_memory_bytes) / mib;
  const double wanted = 64.0 * static_cast<double>(std::max<std::size_t>(1, ranks));
  if (shared < wanted)
    add(findings, fmt::format("/dev/shm has {:.0f} MiB free, MPI's shared memory may need {:.0f}", shared, wanted),
        "give a container more: docker run --shm-size=1g");
  if (!host.governor.empty() && host.governor != "performance")
    add(findings, fmt::format("the CPU's frequency governor is `{}`", host.governor),
        "for timings: cpupower frequency-set -g performance");
  const double cores = static_cast<double>(host.topology.cores.size());
  if (host.limits.cpus && *host.limits.cpus < cores - 0.01)
    add(findings, fmt::format("the control group grants {:.3g} CPUs of {:.0f} cores", *host.limits.cpus, cores),
        fmt::format("compute with at most {:.0f} threads over all ranks", std::max(1.0, *host.limits.cpus)));
  if (host.load > 0.5 * cores)
    add(findings,
        fmt::format("this host is busy: {:.1f} processes on {:.0f} cores in the last minute", host.load, cores),
        "what was measured above, and training beside them, is slower than the machine");
  if (host.starters.empty())
    add(findings, "no mpirun, mpiexec or srun is in PATH", "install Open MPI or load its module");
  if (host.slurm_job && !host.srun_pmix)
    add(findings, "this Slurm's srun has no pmix: ranks that it starts would each be alone",
        "start them with `weft launch` or mpirun");
  if (std::ranges::find(host.isa, "avx512_bf16") == host.isa.end() &&
      std::ranges::find(host.isa, "amx_bf16") == host.isa.end())
    findings.push_back({Severity::note, "the processor has no bf16 instructions", "--dtype auto computes in f32 here"});
}

std::string gpu_cell(const RankFacts& rank) { return rank.gpu.empty() ? "-" : rank.gpu; }

}  // namespace

std::vector<Finding> diagnose(const HostFacts& host, const std::vector<RankFacts>& ranks) {
  std::vector<Finding> findings;
  ByHost hosts;
  for (const RankFacts& rank : ranks) hosts[rank.host].push_back(&rank);
  for (const auto& [name, members] : hosts) check_host_ranks(findings, name, members);
  check_host(findings, host, hosts.contains(host.host) ? hosts.at(host.host).size() : 0);
  return findings;
}

json to_json(const HostFacts& host) {
  json gpus = json::array();
  for (const GpuInfo& gpu : host.topology.gpus) gpus.push_back({{"pci", gpu.pci}, {"numa", gpu.numa}});
  json result = {{"host", host.host},
                 {"cpu", host.topology.cpu_model},
                 {"cores", host.topology.cores.size()},
                 {"machine_cores", host.topology.machine_cores},
                 {"numa_nodes", host.topology.numa_nodes},
                 {"memory_bytes", host.topology.memory_bytes},
                 {"isa", host.isa},
                 {"gpus", gpus},
                 {"shared_memory_bytes", host.shared_memory_bytes},
                 {"starters", host.starters},
                 {"load", host.load},
                 {"governor", host.governor}};
  if (host.limits.cpus) result["group_cpus"] = *host.limits.cpus;
  if (host.limits.memory_bytes) result["group_memory_bytes"] = *host.limits.memory_bytes;
  return result;
}

json to_json(const RankFacts& r) {
  return {{"rank", r.rank},
          {"host", r.host},
          {"cpus", r.cpus},
          {"cores", r.cores},
          {"host_cores", r.host_cores},
          {"numa", r.numa},
          {"numa_nodes", r.numa_nodes},
          {"gpu", r.gpu},
          {"gpu_numa", r.gpu_numa},
          {"threads", r.threads},
          {"network", r.network}};
}

RankFacts rank_from_json(const json& j) {
  return {.rank = j.at("rank"),
          .host = j.at("host"),
          .cpus = j.at("cpus"),
          .cores = j.at("cores"),
          .host_cores = j.at("host_cores"),
          .numa = j.at("numa"),
          .numa_nodes = j.at("numa_nodes"),
          .gpu = j.at("gpu"),
          .gpu_numa = j.at("gpu_numa"),
          .threads = j.at("threads"),
          .network = j.at("network")};
}

json to_json(const Rates& rates) {
  json result = {
      {"f32_gflops", rates.f32_gflops}, {"bf16_gflops", rates.bf16_gflops}, {"copy_gb_per_s", rates.copy_gb_per_s}};
  if (rates.all_reduce_gb_per_s) result["all_reduce_gb_per_s"] = *rates.all_reduce_gb_per_s;
  return result;
}

json to_json(const Finding& finding) {
  return {{"severity", finding.severity == Severity::trap ? "trap" : "note"},
          {"what", finding.what},
          {"advice", finding.advice}};
}

std::string format_ranks(const std::vector<RankFacts>& ranks) {
  std::vector<std::array<std::string, 7>> rows = {{"rank", "host", "GPU", "NUMA", "CPUs", "threads", "network"}};
  for (const RankFacts& r : ranks)
    rows.push_back({std::to_string(r.rank), r.host, gpu_cell(r), r.numa < 0 ? "any" : std::to_string(r.numa),
                    r.cpus.empty() ? "any" : format_cpus(r.cpus), std::to_string(r.threads), r.network});
  std::array<std::size_t, 7> widths{};
  for (const auto& row : rows)
    for (std::size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::string text;
  for (const auto& row : rows) {
    std::string line = " ";
    for (std::size_t i = 0; i < row.size(); ++i) line += fmt::format(" {:<{}}", row[i], widths[i] + 1);
    text += line.substr(0, line.find_last_not_of(' ') + 1) + "\n";
  }
  return text;
}

}  // namespace weft
