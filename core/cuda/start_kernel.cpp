#include "core/cuda/start_kernel.hpp"

#include <cxxabi.h>

#include <cstdlib>
#include <memory>

#include "core/cuda/error.hpp"
#include "core/cuda/stream.hpp"

namespace weft::cuda {
namespace {

constexpr std::int64_t most_blocks = 0x7fffffff;
constexpr std::size_t shared_without_asking = 48 << 10;

std::string name_of(const std::type_info& type) {
  int status = 0;
  const std::unique_ptr<char, decltype(&std::free)> name(abi::__cxa_demangle(type.name(), nullptr, nullptr, &status),
                                                         &std::free);
  return name ? name.get() : type.name();
}

}  // namespace

void start_kernel(ExecContext& exec, std::int64_t blocks, const KernelEntry& entry, const void* kernel,
                  std::size_t shared_bytes) {
  if (blocks == 0) return;
  const auto check_start = [&](cudaError_t status, const char* call) {
    if (status == cudaSuccess) [[likely]]
      return;
    check(status, fmt::format("{} of {} on {} blocks of {} threads with {} bytes of shared memory", call,
                              name_of(entry.type), blocks, entry.threads, shared_bytes));
  };
  WEFT_CHECK(blocks > 0 && blocks <= most_blocks, "{} would need {} blocks, a grid has up to {}", name_of(entry.type),
             blocks, most_blocks);
  if (shared_bytes > shared_without_asking) {
    const auto set = [&](cudaFuncAttribute attribute, int value) {
      check_start(cudaFuncSetAttribute(entry.function, attribute, value), "cudaFuncSetAttribute");
    };
    set(cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    // Such a kernel keeps what it reads again in shared memory, which bounds how many blocks fit a processor.
    set(cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  }
  void* arguments[] = {const_cast<void*>(kernel)};
  check_start(cudaLaunchKernel(entry.function, dim3(static_cast<unsigned>(blocks)),
                               dim3(static_cast<unsigned>(entry.threads)), arguments, shared_bytes, stream_of(exec)),
              "cudaLaunchKernel");
}

}  // namespace weft::cuda
