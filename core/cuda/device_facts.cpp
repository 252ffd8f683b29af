#include "core/cuda/device_facts.hpp"

#include <array>

#include "core/cuda/error.hpp"

namespace weft::cuda {
namespace {

/// "13.0" of 13000, as the driver and the runtime number their versions.
std::string short_version(int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); }

std::string name_of(const cudaDeviceProp& properties) {
  return fmt::format("{}, sm_{}{}", properties.name, properties.major, properties.minor);
}

std::string pci_of(int index) {
  std::array<char, 32> pci{};
  check(cudaDeviceGetPCIBusId(pci.data(), static_cast<int>(pci.size()), index), "cudaDeviceGetPCIBusId");
  return pci.data();
}

/// Makes another device current for a while.
class Visit {
 public:
  Visit() { check(cudaGetDevice(&home_), "cudaGetDevice"); }
  ~Visit() { ignore(cudaSetDevice(home_)); }
  Visit(const Visit&) = delete;
  Visit& operator=(const Visit&) = delete;

 private:
  int home_ = 0;
};

[[noreturn]] void fail_count(cudaError_t status) {
  const std::string reason = fmt::format("{}, {}", cudaGetErrorString(status), cudaGetErrorName(status));
  forget_last_error();
  constexpr int needed = CUDART_VERSION / 1000;
  int driver = 0;
  switch (status) {
    case cudaErrorInsufficientDriver:
      // Without any driver the runtime says the same, and its version is 0.
      ignore(cudaDriverGetVersion(&driver));
      if (driver == 0) fail("no NVIDIA driver was found, and CUDA {} needs one ({})", needed, reason);
      fail("the NVIDIA driver is for CUDA {}, and one for CUDA {} is needed ({})", short_version(driver), needed,
           reason);
    case cudaErrorInitializationError:
    case cudaErrorStubLibrary: fail("no NVIDIA driver for CUDA {} that works was found ({})", needed, reason);
    case cudaErrorNoDevice: fail("the driver shows this process no GPU (is CUDA_VISIBLE_DEVICES empty?)");
    case cudaErrorSystemDriverMismatch:
      fail(
          "the NVIDIA driver's kernel module and its libcuda.so.1 are of two versions; a restart loads the new one "
          "({})",
          reason);
    case cudaErrorSystemNotReady: fail("the GPUs are not ready (does nvidia-fabricmanager run?) ({})", reason);
    default: fail("cudaGetDeviceCount: {}", reason);
  }
}

}  // namespace

int device_count() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status != cudaSuccess) fail_count(status);
  if (count == 0) fail_count(cudaErrorNoDevice);
  return count;
}

std::vector<DeviceSummary> summaries() {
  const int count = device_count();
  const Visit visit;
  std::vector<DeviceSummary> all;
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
    DeviceSummary one{name_of(properties), pci_of(index), 0, 0, {}};
    check(cudaSetDevice(index), "cudaSetDevice");
    check(cudaMemGetInfo(&one.free_bytes, &one.memory_bytes), "cudaMemGetInfo");
    for (int other = 0; other < count; ++other) {
      int reaches = 0;
      if (other != index) check(cudaDeviceCanAccessPeer(&reaches, index, other), "cudaDeviceCanAccessPeer");
      if (reaches != 0) one.peers.push_back(other);
    }
    all.push_back(std::move(one));
  }
  return all;
}

DeviceFacts facts_of(int index) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  int driver = 0, runtime = 0;
  check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  DeviceFacts facts;
  facts.name = name_of(properties);
  facts.fast_bf16 = properties.major >= 8;
  facts.memory_bytes = properties.totalGlobalMem;
  facts.pci = pci_of(index);
  facts.product_size = 4096;
  facts.libraries = {fmt::format("driver for CUDA {}, runtime {}", short_version(driver), short_version(runtime))};
  return facts;
}

}  // namespace weft::cuda
