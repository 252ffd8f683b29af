// What attention's backward kernels are given, and the one that runs before the others.
//
// B sequences, H heads, Hkv key-value heads, Tq queries, Tk keys, D head size.
#pragma once
#include "core/cuda/kernels/attention_relative.hpp"

namespace weft::cuda::attention {

/// What the backward pass knows of each query, f32[B, H, Tq]: its log-sum-exp times log2 e, +∞ where it sees no key,
/// which makes all its probabilities 0; and δ = Σ dout·out.
struct QueryTerms {
  float *lse2, *delta;
};

template <class T>
struct Inputs {
  Problem problem;
  Operand<const T> q, k, v, dout;  // [B, Tq, H, D], [B, Tk, Hkv, D], [B, Tk, Hkv, D], [B, Tq, H, D]
  QueryTerms terms;

  WEFT_DEVICE Rows<const T> queries(const Operand<const T>& from, std::int64_t b, std::int64_t h, std::int64_t q0,
                                    int most) const {
    return from.rows(b, h, q0, tile_size(problem.q_len - q0, most));
  }
  WEFT_DEVICE Rows<const T> keys(const Operand<const T>& from, std::int64_t b, std::int64_t kv, std::int64_t k0,
                                 int most) const {
    return from.rows(b, kv, k0, tile_size(problem.k_len - k0, most));
  }
};

template <class T>
struct Prepare {
  static constexpr int threads = 256, lanes = 8;  // of a row
  static constexpr int width = pack_width<T>;

  std::int64_t batch, q_len, heads;
  Operand<const T> out, dout;  // [B, Tq, H, D]
  const float* lse;            // [B, H, Tq]
  QueryTerms terms;

  WEFT_DEVICE void operator()(const Block& block) const {
    constexpr int block_rows = threads / lanes;
    const std::int64_t rows = batch * q_len * heads, step = block.blocks() * block_rows;
    const int lane = block.thread() % lanes;
    for (std::int64_t first = block.index() * block_rows; first < rows; first += step) {
      const std::int64_t row = first + block.thread() / lanes;
      const std::int64_t h = row % heads, t = row / heads % q_len, b = row / heads / q_len;
      float sum = 0;
      if (row < rows) {
        const Rows<const T> x = out.rows(b, h, t, 1), y = dout.rows(b, h, t, 1);
        if (x.packed && y.packed) {
          for (int col = lane * width; col < x.dim; col += lanes * width) {
            const auto left = load_pack<width>(x.data + col), right = load_pack<width>(y.data + col);
            WEFT_UNROLL
            for (int c = 0; c < width; ++c) sum += to_float(left.at[c]) * to_float(right.at[c]);
          }
        } else {
          for (int col = lane; col < x.dim; col += lanes) sum += to_float(x.data[col]) * to_float(y.data[col]);
        }
      }
      for (int mask = lanes / 2; mask > 0; mask /= 2) sum += block.shuffle_xor(sum, mask);
      if (row >= rows || lane != 0) continue;
      const std::int64_t at = (b * heads + h) * q_len + t;
      terms.lse2[at] = lse[at] == -infinity ? infinity : lse[at] * log2_e;
      terms.delta[at] = sum;
    }
  }
};

}  // namespace weft::cuda::attention
