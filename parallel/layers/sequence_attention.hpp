// Attention over sequences whose tokens lie over the sequence-parallel ranks.
#pragma once
#include "core/ops/attention.hpp"
#include "parallel/build_context.hpp"

namespace weft {

/// How tokens lie over the ranks: in zigzag order where causal ring attention would otherwise leave ranks idle.
TokenOrder token_order(SequenceAttention kind, bool causal);
/// The same for all layers of a causal model.
TokenOrder token_order(const ShardingOptions& sharding);

/// The cost rule of --sp-attention auto: head exchange where the heads of each tensor-parallel rank fit over the sp ranks and
/// it moves fewer bytes forward than the ring, which hides its bytes behind products; for n ranks a token
/// (2H + 2·Hkv)·(n−1)/n heads against 2·Hkv·(n−1).
SequenceAttention choose_sequence_attention(std::int64_t heads, std::int64_t kv_heads, int tp, int sp);

class TokenParallelAttention {
 public:
  /// `layout`: the heads of this rank. Throws UserError where heads cannot be exchanged over the ranks.
  TokenParallelAttention(const BuildContext& build, const ops::HeadLayout& layout, bool causal);

  /// As ops::attention, over the tokens of all ranks: qkv [B, T, ..] holds this rank's (cx.tokens).
  Tensor forward(OpContext& cx, const Tensor& qkv, const ops::AttentionOptions& options) const;

 private:
  Communicator* group_;
  SequenceAttention kind_;
  TokenOrder order_;
  ops::HeadLayout layout_;
};

/// Keys and values travel round the ranks while the block before is computed with; the parts are merged by their
/// log-sum-exp, and backward the blocks' gradients travel with them back to where they came from (Liu et al. 2023). `order`: how
/// the tokens lie over the ranks.
Tensor ring_attention(OpContext& cx, Communicator& group, const Tensor& qkv, const ops::HeadLayout& layout,
                      const ops::AttentionOptions& options, TokenOrder order);

/// All-to-all before and after: each rank has all tokens of a share of the heads (Jacobs et al. 2023).
Tensor exchange_attention(OpContext& cx, Communicator& group, const Tensor& qkv, const ops::HeadLayout& layout,
                          const ops::AttentionOptions& options);

}  // namespace weft
