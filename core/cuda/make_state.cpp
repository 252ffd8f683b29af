#include <algorithm>
#include <array>

#include "core/cuda/error.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/state.hpp"
#include "core/cuda/stream.hpp"

namespace weft::cuda {
namespace {

/// The median of some runs, each queued behind others so that the host's part is hidden.
double seconds_of(const std::function<void()>& run, void* stream) {
  constexpr int rounds = 5, runs = 4;
  auto* on = static_cast<cudaStream_t>(stream);
  const auto make_timer = [] {
    cudaEvent_t event = nullptr;
    check(cudaEventCreate(&event), "cudaEventCreate");
    return EventHandle(event);
  };
  const EventHandle begin = make_timer(), end = make_timer();
  std::array<float, rounds> ms{};
  for (int i = 0; i < runs; ++i) run();
  for (float& each : ms) {
    check(cudaEventRecord(begin.get(), on), "cudaEventRecord");
    for (int i = 0; i < runs; ++i) run();
    check(cudaEventRecord(end.get(), on), "cudaEventRecord");
    check(cudaEventSynchronize(end.get()), "cudaEventSynchronize");
    check(cudaEventElapsedTime(&each, begin.get(), end.get()), "cudaEventElapsedTime");
  }
  std::ranges::sort(ms);
  return static_cast<double>(ms[rounds / 2]) * 1e-3 / runs;
}

}  // namespace

std::unique_ptr<BackendState> make_state(const DeviceOptions& options) {
  int device = 0, major = 0, minor = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
  CublasLtOptions products;
  products.folders.insert(products.folders.end(), options.library_folders.begin(), options.library_folders.end());
  products.table = options.products;
  if (options.measure_products) products.time = seconds_of;
  return std::make_unique<CudaState>(std::move(products),
                                     [&] { return make_cudnn_attention(10 * major + minor, options.library_folders); });
}

}  // namespace weft::cuda
