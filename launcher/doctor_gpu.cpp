#include "launcher/doctor_gpu.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/base/clock.hpp"
#include "core/tensor/tensor.hpp"
#include "launcher/devices.hpp"
#include "launcher/session.hpp"

namespace weft {
namespace {

using nlohmann::json;

constexpr std::int64_t copy_bytes = std::int64_t{64} << 20;

// Bytes a second of the fastest of some rounds.
template <typename Copy>
double rate_of(Device& device, std::int64_t bytes, const Copy& copy) {
  double best = 0;
  for (int round = 0; round < 6; ++round) {
    const double begin = seconds_now();
    copy();
    synchronize(device);
    best = std::max(best, static_cast<double>(bytes) / (seconds_now() - begin));
  }
  return best * 1e-9;
}

GpuRates measure(Engine& engine) {
  GpuRates rates;
  rates.f32_gflops = engine.matrix_rate(DType::f32) * 1e-9;
  rates.bf16_gflops = engine.matrix_rate(DType::bf16) * 1e-9;
  Device& device = engine.device();
  const Shape shape{copy_bytes};
  const Tensor host = Tensor::empty(device.host_memory(), shape, DType::u8, MemoryUse::workspace);
  const Tensor from = Tensor::empty(engine.memory(), shape, DType::u8, MemoryUse::workspace);
  const Tensor to = Tensor::empty(engine.memory(), shape, DType::u8, MemoryUse::workspace);
  const auto& transfer = engine.exec().kernels().transfer;
  ExecContext& exec = engine.exec();
  rates.to_device_gb_per_s = rate_of(device, copy_bytes, [&] { transfer.upload_later(exec, host.view(), from.mut()); });
  rates.to_host_gb_per_s = rate_of(device, copy_bytes, [&] { transfer.download_later(exec, from.view(), host.mut()); });
  rates.on_device_gb_per_s = rate_of(device, 2 * copy_bytes, [&] { transfer.copy(exec, from.view(), to.mut()); });
  return rates;
}

double gib(std::size_t bytes) { return static_cast<double>(bytes) / 0x1p30; }

}  // namespace

GpuReport report_gpus(const RunOptions& options, const RankEnvironment& rank) {
  GpuReport report;
  const CudaModule cuda = load_cuda_module();
  report.missing = cuda.missing;
  if (!cuda.module) return report;
  try {
    report.devices = cuda.module->describe();
    RunOptions on_gpu = options;
    on_gpu.device = DeviceChoice::cuda;
    Engine engine(open_device(on_gpu, rank, cpu::best_isa()));
    report.libraries = engine.device().facts().libraries;
    report.rates = measure(engine);
  } catch (const Error& error) {
    report.missing = error.what();
  }
  return report;
}

json to_json(const GpuReport& report) {
  json all = {{"devices", json::array()}, {"libraries", report.libraries}};
  if (!report.missing.empty()) all["missing"] = report.missing;
  for (const DeviceSummary& device : report.devices)
    all["devices"].push_back({{"name", device.name},
                              {"pci", device.pci},
                              {"memory_bytes", device.memory_bytes},
                              {"free_bytes", device.free_bytes},
                              {"peers", device.peers}});
  if (report.rates)
    all["rates"] = {{"f32_gflops", report.rates->f32_gflops},
                    {"bf16_gflops", report.rates->bf16_gflops},
                    {"to_device_gb_per_s", report.rates->to_device_gb_per_s},
                    {"to_host_gb_per_s", report.rates->to_host_gb_per_s},
                    {"on_device_gb_per_s", report.rates->on_device_gb_per_s}};
  return all;
}

std::string format_gpus(const GpuReport& report) {
  std::string text;
  const auto row = [&](const std::string& name, const std::string& value) {
    text += fmt::format("  {:<14} {}\n", name, value);
  };
  for (std::size_t i = 0; i < report.devices.size(); ++i) {
    const DeviceSummary& device = report.devices[i];
    row(fmt::format("GPU {}", i),
        fmt::format("{}, {}, {:.1f} of {:.1f} GiB free, {}", device.name, device.pci, gib(device.free_bytes),
                    gib(device.memory_bytes),
                    device.peers.empty() ? "reaches no other GPU directly"
                                         : fmt::format("reaches GPU {} directly", fmt::join(device.peers, ", "))));
  }
  for (const std::string& library : report.libraries) row("", library);
  if (report.rates) {
    row("f32 products", fmt::format("{:.1f} TFLOP/s", report.rates->f32_gflops * 1e-3));
    row("bf16 products", fmt::format("{:.1f} TFLOP/s", report.rates->bf16_gflops * 1e-3));
    row("copies",
        fmt::format("{:.1f} GB/s to the GPU, {:.1f} GB/s back, {:.0f} GB/s on it", report.rates->to_device_gb_per_s,
                    report.rates->to_host_gb_per_s, report.rates->on_device_gb_per_s));
  }
  if (!report.missing.empty()) row("unusable", report.missing);
  return text;
}

}  // namespace weft
