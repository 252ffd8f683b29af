// Checks of the channel kernels' arguments that backends share.
#pragma once
#include "core/kernels/channels.hpp"
#include "core/kernels/check.hpp"

namespace weft {

inline void check_channel_gate(const View& x, const View& ab, const View& y) {
  check_given(x, x.shape, x.dtype, "x");
  check_given(y, x.shape, x.dtype, "y");
  WEFT_CHECK(ab || x.cols() == 0, "ab is missing");
  check_count(ab, 2 * x.cols(), "ab");
}

inline void check_channel_gate_backward(const View& x, const View& ab, const View& dy, const View& dx,
                                        const View& dab) {
  check_channel_gate(x, ab, dx);
  check_given(dy, x.shape, x.dtype, "dy");
  WEFT_CHECK(dab || x.cols() == 0, "dab is missing");
  check_count(dab, 2 * x.cols(), "dab");
}

/// The number of chunks of `x` that y, or dy, is as wide as.
inline std::int64_t check_boom(const View& x, const View& y) {
  const std::int64_t chunks = y.cols() == 0 ? 1 : x.cols() / y.cols();
  check_given(y, y.shape, y.dtype, "y");
  check_given(x, {y.rows(), chunks * y.cols()}, y.dtype, "x");
  return chunks;
}

}  // namespace weft
