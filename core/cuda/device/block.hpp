// What a kernel sees of the device: its block of threads. A kernel is a struct of plain values with
//
//   static constexpr int threads = 256;                        // of a block, a multiple of 32
//   WEFT_DEVICE void operator()(const Block& block) const;
//
// and is started by launch(exec, blocks, kernel, shared_bytes). The same source is compiled by nvcc for the GPU and by a
// C++ compiler for fibers on the CPU, one fiber a thread, which tests run it on where there is no GPU. So a kernel uses
// nothing of CUDA but what this folder offers; WEFT_UNROLL before a loop of constant bounds unrolls it whole on the GPU,
// where arrays that it indexes then stay in registers. All threads of a block must reach each sync(), all 32 of a warp each
// shuffle: the fibers' scheduler reports a kernel that breaks this.
#pragma once
#include <cstdint>

#if defined(__CUDACC__)
#include "core/cuda/device/cuda_block.hpp"
#else
#include "core/cuda/fibers/fiber_block.hpp"
#endif

namespace weft::cuda {

inline constexpr int warp_threads = 32;
inline constexpr int max_block_threads = 1024;

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

/// Largest grid of one-dimensional work: beyond it, threads stride over what is left.
inline constexpr std::int64_t max_grid_blocks = 1 << 20;

/// Blocks that cover `items`, one a thread, at most max_grid_blocks.
template <class Kernel>
constexpr std::int64_t blocks_for(std::int64_t items) {
  const std::int64_t blocks = ceil_div(items, Kernel::threads);
  return blocks < max_grid_blocks ? blocks : max_grid_blocks;
}

/// body(i) for this thread's share of [0, count), grid-strided.
template <class Body>
WEFT_DEVICE void for_grid(const Block& block, std::int64_t count, Body&& body) {
  const std::int64_t step = block.blocks() * block.threads();
  for (std::int64_t i = block.index() * block.threads() + block.thread(); i < count; i += step) body(i);
}

/// body(i) for this thread's share of [0, count) among its block.
template <class Body>
WEFT_DEVICE void for_block(const Block& block, std::int64_t count, Body&& body) {
  for (std::int64_t i = block.thread(); i < count; i += block.threads()) body(i);
}

}  // namespace weft::cuda
