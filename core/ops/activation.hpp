// Activations that are not fused into a product.
#pragma once
#include "core/ops/context.hpp"

namespace weft::ops {

/// GELU, tanh form.
Tensor gelu(OpContext& cx, const Tensor& x);

/// silu(gate)·up of gate_up [.., 2F] = gate|up, giving [.., F].
Tensor swiglu(OpContext& cx, const Tensor& gate_up);

}  // namespace weft::ops
