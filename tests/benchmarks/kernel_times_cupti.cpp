#include <cupti.h>
#include <dlfcn.h>

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <mutex>
#include <utility>
#include <vector>

#include "core/base/error.hpp"
#include "tests/benchmarks/kernel_times.hpp"

namespace weft {
namespace {

constexpr std::size_t buffer_bytes = std::size_t{8} << 20;
constexpr std::size_t buffer_alignment = 64;

// CUPTI's callbacks take no argument of ours.
struct Records {
  std::mutex mutex;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> kernels;  // begin and end in nanoseconds
  decltype(&cuptiActivityFlushAll) flush = nullptr;
  decltype(&cuptiActivityGetNextRecord) next = nullptr;
};

Records& records() {
  static Records all;
  return all;
}

void CUPTIAPI give_buffer(std::uint8_t** buffer, std::size_t* size, std::size_t* most_records) {
  *buffer = static_cast<std::uint8_t*>(std::aligned_alloc(buffer_alignment, buffer_bytes));
  *size = *buffer ? buffer_bytes : 0;
  *most_records = 0;
}

void CUPTIAPI take_buffer(CUcontext, std::uint32_t, std::uint8_t* buffer, std::size_t, std::size_t valid) {
  const std::lock_guard lock(records().mutex);
  CUpti_Activity* record = nullptr;
  while (records().next(buffer, valid, &record) == CUPTI_SUCCESS) {
    if (record->kind != CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL) continue;
    const auto* kernel = reinterpret_cast<const CUpti_ActivityKernel9*>(record);
    records().kernels.emplace_back(kernel->start, kernel->end);
  }
  std::free(buffer);
}

void* open_cupti() {
  for (const char* name : {"libcupti.so.13", "libcupti.so.12", "libcupti.so", "/usr/local/cuda/lib64/libcupti.so",
                           "/usr/local/cuda/extras/CUPTI/lib64/libcupti.so"})
    if (void* library = dlopen(name, RTLD_NOW | RTLD_LOCAL)) return library;
  fail("CUPTI cannot be opened: {}", dlerror());
}

template <class Function>
Function* entry(void* library, const char* name) {
  void* found = dlsym(library, name);
  WEFT_CHECK(found, "CUPTI has no {}", name);
  return reinterpret_cast<Function*>(found);
}

void check(CUptiResult result, const char* call) {
  if (result != CUPTI_SUCCESS) fail("{}: CUPTI's error {}", call, static_cast<int>(result));
}

}  // namespace

void count_kernel_times() {
  void* library = open_cupti();
  records().flush = entry<decltype(cuptiActivityFlushAll)>(library, "cuptiActivityFlushAll");
  records().next = entry<decltype(cuptiActivityGetNextRecord)>(library, "cuptiActivityGetNextRecord");
  const auto set_buffers = entry<decltype(cuptiActivityRegisterCallbacks)>(library, "cuptiActivityRegisterCallbacks");
  const auto enable = entry<decltype(cuptiActivityEnable)>(library, "cuptiActivityEnable");
  check(set_buffers(give_buffer, take_buffer), "cuptiActivityRegisterCallbacks");
  check(enable(CUPTI_ACTIVITY_KIND_CONCURRENT_KERNEL), "cuptiActivityEnable");
}

double take_kernel_seconds() {
  check(records().flush(0), "cuptiActivityFlushAll");
  const std::lock_guard lock(records().mutex);
  auto& kernels = records().kernels;
  std::ranges::sort(kernels);
  std::uint64_t busy = 0, until = 0;
  for (const auto& [begin, end] : kernels) {
    if (end > until) busy += end - std::max(begin, until);
    until = std::max(until, end);
  }
  kernels.clear();
  return static_cast<double>(busy) * 1e-9;
}

}  // namespace weft
