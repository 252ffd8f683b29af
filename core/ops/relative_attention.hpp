// Attention with relative positions and a memory of earlier tokens (Transformer-XL, section 3 of Dai et al. 2019).
#pragma once
#include "core/ops/attention.hpp"

namespace weft::ops {

/// Of a head with relative positions, on every backend.
inline constexpr std::int64_t widest_relative_head = 256;

/// R [count, width]: row n has sin(d·ω_k), then cos(d·ω_k) of distance d = first + n, which may be negative, with ω_k =
/// 10000^(−2k/width). `width` is even. A constant: not recorded.
Tensor sinusoids(OpContext& cx, std::int64_t first, std::int64_t count, std::int64_t width);

/// What scores know of distances; see RelativePositions.
struct RelativeTerm {
  const Tensor& r;  ///< [L, H·hd], row n of distance first + n
  std::int64_t first = 0;
  Parameter& content_bias;  ///< u and v, [H·hd]
  Parameter& place_bias;
};

/// Keys and values, side by side as in a fused projection: the last `tokens` rows of [B, rows, 2·Hkv·hd].
struct AttentionMemory {
  Tensor keys_values;
  std::int64_t tokens = 0;
};

struct RelativeAttended {
  Tensor y;            ///< [B, T, H·hd]
  Tensor keys_values;  ///< of the memory and the tokens [B, tokens + T, 2·Hkv·hd], detached; undefined without a memory
};

/// qkv [B, T, (H + 2·Hkv)·hd] attend to themselves, and with a memory (null: none; it may be empty) to what stands before
/// them, which gets no gradient. Gradients go to qkv, r and the biases. Scores are scaled by 1/√hd.
RelativeAttended relative_attention(OpContext& cx, const Tensor& qkv, const AttentionMemory* memory,
                                    const RelativeTerm& term, const HeadLayout& layout,
                                    const AttentionOptions& options);

}  // namespace weft::ops
