// The one way in which own kernels are started.
#pragma once
#include <cstdint>

#include "core/cuda/device/block.hpp"
#include "core/kernels/exec.hpp"

#if defined(__CUDACC__)
#include "core/cuda/error.hpp"
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
/// block's shared memory. Throws Error when the launch is refused.
template <class Kernel>
void launch(ExecContext& exec, std::int64_t blocks, const Kernel& kernel, std::size_t shared_bytes = 0) {
  static_assert(Kernel::threads % warp_threads == 0 && Kernel::threads <= max_block_threads);
  if (blocks == 0) return;
  WEFT_CHECK(blocks > 0 && blocks <= 0x7fffffff, "a grid of {} blocks", blocks);
  constexpr std::size_t without_asking = 48 << 10;
  if (shared_bytes > without_asking) {
    const auto set = [](cudaFuncAttribute attribute, int value) {
      check(cudaFuncSetAttribute(run_kernel<Kernel>, attribute, value), "cudaFuncSetAttribute");
    };
    set(cudaFuncAttributeMaxDynamicSharedMemorySize, static_cast<int>(shared_bytes));
    // Such a kernel keeps what it reads again in shared memory, which bounds how many blocks fit a processor.
    set(cudaFuncAttributePreferredSharedMemoryCarveout, cudaSharedmemCarveoutMaxShared);
  }
  run_kernel<Kernel><<<static_cast<unsigned>(blocks), Kernel::threads, shared_bytes,
                       static_cast<cudaStream_t>(exec.stream.handle)>>>(kernel);
  check(cudaGetLastError(), "kernel launch");
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
