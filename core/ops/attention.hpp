// Multi-head attention over a fused projection.
#pragma once
#include "core/ops/context.hpp"

namespace weft::ops {

/// How the columns of a fused projection [B, T, (H + 2·Hkv)·hd] split: query heads, then key heads, then value heads.
struct HeadLayout {
  std::int64_t heads = 1;
  std::int64_t kv_heads = 1;
  std::int64_t head_dim = 1;
  std::int64_t head_begin = 0;    ///< of the query heads, in the whole model's
  std::int64_t heads_global = 0;  ///< query heads of the whole model; 0: these
  std::int64_t width() const { return (heads + 2 * kv_heads) * head_dim; }
};

/// Of a head, on every backend.
inline constexpr std::int64_t widest_head = 1024;

/// Strided views [B, T, heads, hd] into a fused projection.
template <class AnyView>
struct Heads {
  AnyView q, k, v;
};
Heads<MutView> split_heads(const Tensor& qkv, const HeadLayout& layout);

struct AttentionOptions {
  bool causal = true;
  float dropout = 0;
  int dropout_site = 0;
};

/// What the kernels are told of heads, scale, dropout and the tokens' place, for queries and keys of one interval.
AttentionSpec attention_spec(const OpContext& cx, const HeadLayout& layout, const AttentionOptions& options);

/// Cost of recording attention over `pairs` visible (query, key) pairs: forward, backward.
std::pair<Cost, Cost> attention_costs(double pairs, std::int64_t head_dim, double bytes);

/// qkv [B, T, (H + 2·Hkv)·hd] → [B, T, H·hd]; scores are scaled by 1/√hd.
Tensor attention(OpContext& cx, const Tensor& qkv, const HeadLayout& layout, const AttentionOptions& options);

/// The same with q [B, T, H·hd] apart from its keys and values kv [B, T, 2·Hkv·hd].
Tensor attention(OpContext& cx, const Tensor& q, const Tensor& kv, const HeadLayout& layout,
                 const AttentionOptions& options);

/// One head of queries q [B, T, D] over `memory` [B, T, D], whose rows are both keys and values.
Tensor memory_attention(OpContext& cx, const Tensor& q, const Tensor& memory, const AttentionOptions& options);

/// Keys and values of the tokens seen so far, [B, capacity, Hkv, hd] each.
struct KeyValueCache {
  Tensor keys, values;
  std::int64_t length = 0;
};

/// Attention of new tokens (qkv as above) to the cache and to each other; appends them to the cache. Not recorded: for
/// decoding only. Throws Error when the cache is full.
Tensor attention_cached(OpContext& cx, const Tensor& qkv, const HeadLayout& layout, KeyValueCache& cache);
Tensor attention_cached(OpContext& cx, const Tensor& q, const Tensor& kv, const HeadLayout& layout,
                        KeyValueCache& cache);

/// The same of memory_attention: keys and values of the cache are one tensor, [B, capacity, 1, D].
Tensor memory_attention_cached(OpContext& cx, const Tensor& q, const Tensor& memory, KeyValueCache& cache);

/// Turns the query and key heads of qkv by rotary positions, in place where no one else holds it.
Tensor rotary(OpContext& cx, Tensor qkv, const HeadLayout& layout, float theta);

}  // namespace weft::ops
