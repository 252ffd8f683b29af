// What a test sees and sets of the stand-in for the CUDA runtime, which is linked in its place.
#pragma once
#include <cuda_runtime.h>

#include <cstddef>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace weft::test {

struct FakeCuda {
  /// A code that the CUDA runtime's header declares.
  struct Code {
    cudaError_t value;
    const char* name;
  };
  struct Launch {
    std::string kernel;
    std::int64_t blocks;
    int threads;
    std::size_t shared_bytes;
  };
  /// What was made and not given back.
  struct Live {
    int device_blocks = 0, pinned_blocks = 0, streams = 0, events = 0, captures = 0, graphs = 0, executables = 0;
    bool operator==(const Live&) const = default;
  };

  // The machine.
  int devices = 1;
  int driver = CUDART_VERSION;  ///< 0: none is installed
  int capability = 90;
  bool has_kernels = true;  ///< whether they were compiled for the device
  std::size_t memory_bytes = std::size_t{80} << 30, pinned_bytes = std::size_t{80} << 30;
  /// Whether streams run what they are given as late as may be (when something waits for it), or at once.
  bool late = false;

  // The fault: `status` is what `call` gives at its n-th call from now on (the first is 1), and at the `times - 1` after it.
  // The call "kernel" is the running of one.
  std::string failing_call;
  cudaError_t failing_status = cudaSuccess;
  int failing_at = 1, failing_times = 1;

  // What happened.
  std::map<std::string, int> calls;
  int failures = 0;              ///< how often the fault happened
  int waiting = 0;               ///< work that streams were given and have not run
  std::vector<Launch> launches;  ///< of kernels, recorded or not
  /// What a runtime does not report and is wrong: freed memory in a copy, an asynchronous copy of memory that is not
  /// pinned, a handle that is ended twice.
  std::vector<std::string> faults_of_the_caller;

  Live live() const;
  void fail(std::string call, cudaError_t status, int at = 1, int times = 1);
  /// As a new process finds it. Nothing may live.
  void reset();
};

FakeCuda& fake_cuda();
/// Every one but success.
std::span<const FakeCuda::Code> error_codes();
/// Whether the device is lost after it.
bool is_sticky(cudaError_t status);

}  // namespace weft::test
