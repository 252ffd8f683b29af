// Linear layers and the fused output loss.
#pragma once
#include "core/ops/context.hpp"

namespace weft::ops {

/// y[.., N] = epilogue(x[.., K]·Wᵀ + b); weight [N, K], bias [N] or null.
Tensor linear(OpContext& cx, const Tensor& x, Parameter& weight, Parameter* bias, Epilogue epilogue = Epilogue::none);

struct LossTargets {
  View targets;      ///< i32[M]; negative: ignored
  View weights;      ///< f32[M]
  float scale = 1;   ///< 1 / Σ weights over the GLOBAL batch
};

struct CrossEntropy {
  Tensor rows;  ///< f32[M], loss of each target, not weighted
  Tensor loss;  ///< f64[1] = Σ scale·weights·rows: this rank's part of the mean
};

/// Softmax cross-entropy of logits h·Wᵀ that never holds all logits. A terminal operation: the gradients of `loss` are
/// taken in the forward pass, while a chunk's logits are at hand, so backward must start at `loss` with gradient 1.
CrossEntropy cross_entropy(OpContext& cx, const Tensor& h, Parameter& weight, const LossTargets& targets);

}  // namespace weft::ops
