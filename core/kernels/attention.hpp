// Multi-head attention that never stores the T×T matrix (Dao et al. 2022), with grouped-query heads (Ainslie et al. 2023).
#pragma once
#include "core/kernels/dropout.hpp"
#include "core/kernels/slot.hpp"

namespace weft {

struct AttentionSpec {
  bool causal = true;
  float scale = 1;  ///< on QKᵀ, usually 1/√hd
  /// Global position of query 0 and key 0; causal masking lets query i see key j when q_begin + i >= k_begin + j.
  std::int64_t q_begin = 0;
  std::int64_t k_begin = 0;
  /// Dropout on the probabilities, indexed ((b·H + h)·Tq_global + q)·Tk_global + k with b the global sequence and h the
  /// global head: p, key and rows.first_sequence are read from it.
  DropoutSpec dropout;
  std::int64_t head_begin = 0;    ///< global index of local head 0
  std::int64_t heads_global = 0;
  std::int64_t seq_global = 0;    ///< Tq_global = Tk_global
};

/// What relative positions add to the scores (section 3.3 of Dai et al. 2019): score_ij = scale·((q_i + u)·k_j + (q_i +
/// v)·r_{i−j}), with i − j the distance of their global positions.
struct RelativePositions {
  View r;                         ///< [L, H, hd] strided, the last dim contiguous: row n is of distance first + n
  std::int64_t first = 0;         ///< every visible pair's distance lies in [first, first + L)
  View content_bias, place_bias;  ///< u and v, f32[H, hd]
};

struct RelativeGradients {
  MutView r;                         ///< overwritten, strided like r
  MutView content_bias, place_bias;  ///< f32[H, hd], = or += as `write` says
  Write write = Write::overwrite;
};

struct AttentionKernels {
  /// q[B,Tq,H,hd], k and v[B,Tk,Hkv,hd] strided (the last dim contiguous, so they may be slices of a fused projection),
  /// H a multiple of Hkv, head sizes to 1024; out[B,Tq,H,hd]; lse f32[B,H,Tq] = log Σ exp(scores), may be empty. A query
  /// that sees no key gives 0 and lse −inf.
  Slot<void(View q, View k, View v, AttentionSpec spec, MutView out, MutView lse)> forward{"attention.forward"};
  /// dq, dk, dv (overwritten, strided like q, k, v) from dout, with probabilities recomputed from lse.
  Slot<void(View q, View k, View v, View out, View lse, View dout, AttentionSpec spec, MutView dq, MutView dk,
            MutView dv)>
      backward{"attention.backward"};
  /// Both with relative positions, head sizes to 256. Nothing of size Tq×Tk is stored here either: a tile of scores needs a
  /// band of r.
  Slot<void(View q, View k, View v, RelativePositions positions, AttentionSpec spec, MutView out, MutView lse)>
      relative_forward{"attention.relative_forward"};
  Slot<void(View q, View k, View v, RelativePositions positions, View out, View lse, View dout, AttentionSpec spec,
            MutView dq, MutView dk, MutView dv, RelativeGradients gradients)>
      relative_backward{"attention.relative_backward"};
  /// out, lse: attention over some keys; part, part_lse: the same queries' over others. Afterwards out and lse are the
  /// attention over both. part[B,T,H,hd] and part_lse f32[B,H,T] contiguous; out f32[B,T,H,hd] and lse f32[B,H,T] may be
  /// strided, the last dim of out contiguous. What saw no key yet has out 0 and lse −inf.
  Slot<void(View part, View part_lse, MutView out, MutView lse)> merge{"attention.merge"};
};

/// Forward cost of `pairs` = Σ over sequences and heads of visible (query, key) pairs; backward costs 2.5 times that.
Cost attention_cost(double pairs, std::int64_t head_dim, double bytes);
/// The same with relative positions, whose product is a third one forward and three more of eight backward.
Cost relative_attention_cost(double pairs, std::int64_t head_dim, double bytes);

}  // namespace weft
