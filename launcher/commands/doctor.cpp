// weft doctor: what this machine has, where ranks sit, what is wrong, and how fast it is.
#include "launcher/doctor.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <nlohmann/json.hpp>
#include <thread>

#include "core/base/clock.hpp"
#include "core/cpu/backend.hpp"
#include "launcher/doctor_gpu.hpp"
#include "launcher/product_tables.hpp"
#include "launcher/progress.hpp"
#include "launcher/ranks.hpp"
#include "launcher/session.hpp"
#include "launcher/standard_output.hpp"
#include "parallel/comm/text_exchange.hpp"

namespace weft {
namespace {

using nlohmann::json;

json versions() {
  const auto named = [](const std::string& library) { return library.empty() ? json() : json(library); };
  return {{"weft", WEFT_VERSION},
          {"compiler", "g++ " __VERSION__},
          {"mpi", named(mpi_library())},
          {"onednn", named(cpu::dnnl_library())},
          {"kernels", cpu::name_of(cpu::best_isa())}};
}

// Bytes read and written, on all threads of the rank.
double copy_rate(int threads) {
  constexpr std::size_t part = std::size_t{64} << 20;
  std::vector<char> from(part * static_cast<std::size_t>(threads), 1), to(from.size());
  std::vector<double> seconds;
  for (int round = 0; round < 5; ++round) {
    const double begin = seconds_now();
    std::vector<std::jthread> workers;
    for (int t = 0; t < threads; ++t)
      workers.emplace_back([&, t] {
        const std::size_t offset = static_cast<std::size_t>(t) * part;
        std::memcpy(to.data() + offset, from.data() + offset, part);
      });
    workers.clear();
    seconds.push_back(seconds_now() - begin);
  }
  return 2 * static_cast<double>(from.size()) / *std::ranges::min_element(seconds) * 1e-9;
}

// Bus bandwidth as nccl-tests defines it: what each link carries, whatever the number of ranks.
double all_reduce_rate(Communicator& world) {
  std::vector<float> data(std::size_t{4} << 20, 0.0f);
  const MutView view(data.data(), {static_cast<std::int64_t>(data.size())}, DType::f32);
  std::vector<double> seconds;
  for (int round = 0; round < 6; ++round) {
    world.barrier().wait();
    const double begin = seconds_now();
    world.all_reduce(view).wait();
    seconds.push_back(seconds_now() - begin);
  }
  const double ranks = world.size();
  return 2 * (ranks - 1) / ranks * static_cast<double>(view.bytes()) / *std::ranges::min_element(seconds) * 1e-9;
}

Rates measure(const Options& options) {
  Rates rates;
  RunOptions on_cpu = options.run;
  on_cpu.device = DeviceChoice::cpu;
  Engine engine(on_cpu);
  rates.f32_gflops = engine.matrix_rate(DType::f32) * 1e-9;
  if (engine.device().facts().fast_bf16) rates.bf16_gflops = engine.matrix_rate(DType::bf16) * 1e-9;
  rates.copy_gb_per_s = copy_rate(engine.exec().threads());
  return rates;
}

std::vector<RankFacts> gather(Communicator& world, const RankFacts& own) {
  std::vector<RankFacts> ranks;
  for (const std::string& text : all_gather_text(world, to_json(own).dump()))
    ranks.push_back(rank_from_json(json::parse(text)));
  return ranks;
}

std::string memory_text(std::uint64_t bytes) { return fmt::format("{:.1f} GiB", static_cast<double>(bytes) / 0x1p30); }

void print_text(const HostFacts& host, const std::vector<RankFacts>& ranks, bool planned, const Rates& rates,
                const GpuReport& gpus, const std::vector<Finding>& findings) {
  const json version = versions();
  const auto row = [](const char* name, const std::string& value) { print_output("  {:<14} {}\n", name, value); };
  print_output("Versions\n");
  row("weft", version["weft"]);
  row("compiler", version["compiler"]);
  const auto library = [&](const char* name, const json& found, const char* otherwise) {
    row(name, found.is_null() ? otherwise : found.get<std::string>());
  };
  library("MPI", version["mpi"], "none: one rank");
  library("oneDNN", version["onednn"], "none: bf16 products by vector kernels");
  print_output("\nHost {}\n", host.host);
  const Topology& topology = host.topology;
  row("processor", topology.cpu_model);
  row("cores", fmt::format("{} of {}, {} NUMA node{}{}", topology.cores.size(), topology.machine_cores,
                           topology.numa_nodes, topology.numa_nodes == 1 ? "" : "s",
                           host.limits.cpus ? fmt::format(", control group: {:.3g} CPUs", *host.limits.cpus) : ""));
  row("kernels", fmt::format("{} ({})", version["kernels"].get<std::string>(), fmt::join(host.isa, " ")));
  row("memory",
      memory_text(topology.memory_bytes) +
          (host.limits.memory_bytes ? fmt::format(", control group: {}", memory_text(*host.limits.memory_bytes)) : ""));
  row("/dev/shm", memory_text(host.shared_memory_bytes));
  row("GPUs", topology.gpus.empty() ? "none" : std::to_string(topology.gpus.size()));
  row("starters", host.starters.empty() ? "none" : fmt::format("{}", fmt::join(host.starters, " ")));
  print_output("\n{}\n{}", planned ? "Ranks as `weft launch` would place them" : "Ranks", format_ranks(ranks));
  print_output("\nMeasured on rank 0\n");
  row("f32 products", fmt::format("{:.0f} GFLOP/s", rates.f32_gflops));
  if (rates.bf16_gflops > 0) row("bf16 products", fmt::format("{:.0f} GFLOP/s", rates.bf16_gflops));
  row("memory copy", fmt::format("{:.1f} GB/s", rates.copy_gb_per_s));
  if (rates.all_reduce_gb_per_s)
    row("all-reduce", fmt::format("{:.2f} GB/s (16 MiB, bus)", *rates.all_reduce_gb_per_s));
  print_output("\nGPUs\n{}\n", format_gpus(gpus));
  for (const Finding& finding : findings)
    print_output("{}: {}.\n      {}\n", finding.severity == Severity::trap ? "TRAP" : "note", finding.what,
               finding.advice);
  const auto traps = std::ranges::count(findings, Severity::trap, &Finding::severity);
  print_output("{}\n", traps == 0 ? "No trap was found."
                                : fmt::format("{} trap{} found.", traps, traps == 1 ? " was" : "s were"));
}

void print_all(const Options& options, const HostFacts& host, const std::vector<RankFacts>& ranks, bool planned,
               const Rates& rates, const GpuReport& gpus) {
  const std::vector<Finding> findings = diagnose(host, ranks);
  if (!options.run.json) return print_text(host, ranks, planned, rates, gpus, findings);
  json all = {{"versions", versions()},
              {"host", to_json(host)},
              {"rates", to_json(rates)},
              {"planned", planned},
              {"gpus", to_json(gpus)}};
  for (const RankFacts& rank : ranks) all["ranks"].push_back(to_json(rank));
  all["findings"] = json::array();
  for (const Finding& finding : findings) all["findings"].push_back(to_json(finding));
  print_output("{}\n", all.dump(2));
}

}  // namespace

ExitStatus run_doctor(const Options& options) {
  if (!options.run.tune.empty()) return tune_products(options);
  const RankEnvironment rank = rank_environment();
  if (rank.alone()) {
    const HostFacts host = read_host_facts();
    print_all(options, host, planned_ranks(host), true, measure(options), report_gpus(options.run, rank));
    return ExitStatus::done;
  }
  // Before this rank is bound to its part of the host.
  const HostFacts host = read_host_facts();
  return with_ranks(options, [&](MpiRuntime& mpi, CommLog&) {
    const RankFacts own = read_rank_facts(rank);
    const std::vector<RankFacts> ranks = gather(mpi.world(), own);
    Rates rates = measure(options);
    const GpuReport gpus = report_gpus(options.run, rank);
    if (mpi.size() > 1) rates.all_reduce_gb_per_s = all_reduce_rate(mpi.world());
    if (mpi.rank() == 0) print_all(options, host, ranks, false, rates, gpus);
    return ExitStatus::done;
  });
}

}  // namespace weft
