// Token and position embeddings.
#pragma once
#include "core/ops/context.hpp"

namespace weft::ops {

struct EmbeddingOptions {
  float dropout = 0;
  int dropout_site = 0;
  VocabShard shard;  ///< what of the vocabulary the table holds
  /// Whether y has the positions; ranks whose y are summed let one of them add these. Their gradient is dy's either way.
  bool adds_positions = true;
};

/// tokens i32[B, T] → dropout(table[token] + positions[position]), [B, T, D] in the context's compute dtype. `positions`
/// may be null.
Tensor embedding(OpContext& cx, const Tensor& tokens, Parameter& table, Parameter* positions,
                 const EmbeddingOptions& options = {});

}  // namespace weft::ops
