#include "parallel/layers/sequence_attention.hpp"

namespace weft {

TokenOrder token_order(SequenceAttention kind, bool causal) {
  return kind == SequenceAttention::ring && causal ? TokenOrder::zigzag : TokenOrder::contiguous;
}

TokenOrder token_order(const ShardingOptions& sharding) {
  return sharding.contiguous_tokens ? TokenOrder::contiguous : token_order(sharding.sp_attention, true);
}

SequenceAttention choose_sequence_attention(std::int64_t heads, std::int64_t kv_heads, int tp, int sp) {
  const HeadShare own = share_heads(heads, kv_heads, tp, 0);
  const double h = static_cast<double>(own.heads.size()), kv = static_cast<double>(own.kv_heads.size());
  bool fits = true;
  for (int rank = 0; rank < tp; ++rank) {
    const HeadShare share = share_heads(heads, kv_heads, tp, rank);
    fits = fits && heads_fit(share.heads.size(), share.kv_heads.size(), sp);
  }
  return fits && (2 * h + 2 * kv) / sp < 2 * kv ? SequenceAttention::exchange : SequenceAttention::ring;
}

TokenParallelAttention::TokenParallelAttention(const BuildContext& build, const ops::HeadLayout& layout, bool causal)
    : group_(&build.mesh.comm(Axis::sp)), kind_(build.sharding.sp_attention),
      order_(build.sharding.contiguous_tokens ? TokenOrder::contiguous : token_order(kind_, causal)), layout_(layout) {
  if (group_->size() == 1 || kind_ == SequenceAttention::ring) return;
  if (!heads_fit(layout.heads, layout.kv_heads, group_->size()))
    fail_user(
        "--sp-attention: found exchange, but {} heads with {} key-value heads on each rank do not go over --sp {}; "
        "ring, or --sp {} or less, would be right",
        layout.heads, layout.kv_heads, group_->size(), layout.kv_heads);
}

Tensor TokenParallelAttention::forward(OpContext& cx, const Tensor& qkv, const ops::AttentionOptions& options) const {
  if (group_->size() == 1) return ops::attention(cx, qkv, layout_, options);
  return kind_ == SequenceAttention::ring ? ring_attention(cx, *group_, qkv, layout_, options, order_)
                                          : exchange_attention(cx, *group_, qkv, layout_, options);
}

}  // namespace weft
