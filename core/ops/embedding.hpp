// Token and position embeddings.
#pragma once
#include "core/ops/context.hpp"

namespace weft::ops {

/// tokens i32[B, T] → dropout(table[token] + positions[position]), [B, T, D] in the context's compute dtype. `positions`
/// may be null.
Tensor embedding(OpContext& cx, const Tensor& tokens, Parameter& table, Parameter* positions, float p = 0,
                 int dropout_site = 0);

}  // namespace weft::ops
