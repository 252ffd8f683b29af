// The one way in which own kernels are started.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/cuda/device/block.hpp"
#include "core/kernels/exec.hpp"

#if defined(__CUDACC__)
#include "core/cuda/start_kernel.hpp"
#else
#include "core/cuda/fibers/fiber_state.hpp"
#include "core/cuda/fibers/fibers.hpp"
#endif

namespace weft::cuda {

#if defined(__CUDACC__)

template <class Kernel>
__global__ void __launch_bounds__(Kernel::threads) run_kernel(const __grid_constant__ Kernel kernel) {
  kernel(Block{});
}

/// Starts `blocks` blocks of Kernel::threads threads on the context's stream; none for 0 blocks. shared_bytes is the
/// block's shared memory. Throws Error that names the kernel when the launch is refused.
template <class Kernel>
void launch(ExecContext& exec, std::int64_t blocks, const Kernel& kernel, std::size_t shared_bytes = 0) {
  static_assert(Kernel::threads % warp_threads == 0 && Kernel::threads <= max_block_threads);
  const KernelEntry entry{reinterpret_cast<const void*>(&run_kernel<Kernel>), typeid(Kernel), Kernel::threads};
  start_kernel(exec, blocks, entry, &kernel, shared_bytes);
}

#else

template <class Kernel>
void launch(ExecContext& exec, std::int64_t blocks, const Kernel& kernel, std::size_t shared_bytes = 0) {
  static_assert(Kernel::threads % warp_threads == 0 && Kernel::threads <= max_block_threads);
  fibers::enqueue(exec, [=] {
    fibers::run_grid(blocks, Kernel::threads, shared_bytes, [&](const Block& block) { kernel(block); });
  });
}

#endif

}  // namespace weft::cuda
