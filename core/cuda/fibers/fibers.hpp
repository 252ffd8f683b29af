// Runs a grid of blocks on the CPU, one block after another, one fiber a thread.
#pragma once
#include <cstddef>
#include <cstdint>
#include <functional>

#include "core/cuda/device/block.hpp"

namespace weft::cuda::fibers {

/// `body` is the kernel's code for one thread. Shared memory holds NaNs at first, has guarded ends, and threads run in
/// another order in each block, so that code that leans on either shows. Throws Error when threads wait for each other
/// in vain (a barrier that not all of them reach), when shared memory is written past its end, and what body throws.
void run_grid(std::int64_t blocks, int threads, std::size_t shared_bytes,
              const std::function<void(const Block&)>& body);

}  // namespace weft::cuda::fibers
