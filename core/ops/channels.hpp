// Gates of channels that are the same for all tokens, and the Boom layer's activation (Merity 2019); see
// core/kernels/channels.hpp.
#pragma once
#include "core/ops/context.hpp"

namespace weft::ops {

/// g⊙x with g = σ(a)⊙φ(b) of ab = a|b, f32 [.., 2D] of one row; x [.., D].
Tensor channel_gate(OpContext& cx, GateFunction phi, const Tensor& x, const Tensor& ab);

/// Σ of GELU over the chunks of x [.., n·width], giving [.., width].
Tensor boom(OpContext& cx, const Tensor& x, std::int64_t width);

/// A parameter as an operand of other operations: a copy in f32, of shape [1, numel].
Tensor parameter_row(OpContext& cx, Parameter& parameter);

}  // namespace weft::ops
