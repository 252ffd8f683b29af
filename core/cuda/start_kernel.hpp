// What launch() does for every kernel of the GPU, whatever its type.
#pragma once
#include <cstddef>
#include <cstdint>
#include <typeinfo>

#include "core/kernels/exec.hpp"

namespace weft::cuda {

struct KernelEntry {
  const void* function;  ///< as nvcc's host code names it
  const std::type_info& type;
  int threads;  ///< of a block
};

/// Starts `entry` with its values at `kernel`. Throws Error that names the kernel and CUDA's reason when it is refused.
void start_kernel(ExecContext& exec, std::int64_t blocks, const KernelEntry& entry, const void* kernel,
                  std::size_t shared_bytes);

}  // namespace weft::cuda
