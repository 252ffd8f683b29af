// Reductions over a warp and over a block, in a fixed order: the same bits in each run.
#pragma once
#include "core/cuda/device/block.hpp"

namespace weft::cuda {

struct Sum {
  template <class T>
  WEFT_DEVICE T operator()(T a, T b) const {
    return a + b;
  }
};
struct Max {
  template <class T>
  WEFT_DEVICE T operator()(T a, T b) const {
    return a > b ? a : b;
  }
};

/// The result in all 32 lanes.
template <class T, class Op>
WEFT_DEVICE T reduce_warp(const Block& block, T value, Op op) {
  for (int mask = warp_threads / 2; mask > 0; mask /= 2) value = op(value, block.shuffle_xor(value, mask));
  return value;
}

/// Bytes of shared memory that reduce_block<T> wants.
template <class T>
inline constexpr std::size_t reduce_bytes = sizeof(T) * (max_block_threads / warp_threads);

/// The result in all threads. `scratch` is reduce_bytes<T> of shared memory, which may be used again at once.
template <class T, class Op>
WEFT_DEVICE T reduce_block(const Block& block, T value, Op op, T* scratch) {
  value = reduce_warp(block, value, op);
  if (block.warps() == 1) return value;
  block.sync();
  if (block.lane() == 0) scratch[block.warp()] = value;
  block.sync();
  value = scratch[0];
  for (int warp = 1; warp < block.warps(); ++warp) value = op(value, scratch[warp]);
  return value;
}

}  // namespace weft::cuda
