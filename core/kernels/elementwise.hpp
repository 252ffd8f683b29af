// Activations, sums, casts and fills.
#pragma once
#include "core/kernels/slot.hpp"

namespace weft {

struct ElementwiseKernels {
  /// y = GELU(x), tanh form (Hendrycks & Gimpel 2016), as GPT-2.
  Slot<void(View x, MutView y)> gelu{"gelu.forward"};
  /// dx = dy·GELU'(x); dx may be dy's memory.
  Slot<void(View x, View dy, MutView dx)> gelu_backward{"gelu.backward"};
  /// y[M,F] = silu(g)·u with gate_up[M,2F] = g|u (Shazeer 2020).
  Slot<void(View gate_up, MutView y)> swiglu{"swiglu.forward"};
  Slot<void(View gate_up, View dy, MutView dgate_up)> swiglu_backward{"swiglu.backward"};
  /// y = a + b, elementwise; y may be a's or b's memory.
  Slot<void(View a, View b, MutView y)> add{"add"};
  /// y = x + alpha·a, with alpha f32[1] in the device's memory.
  Slot<void(View x, View a, View alpha, MutView y)> scaled_add{"scaled_add.forward"};
  /// da = alpha·dy; dalpha[1] (f32, = or +=) Σ a·dy, in a fixed order.
  Slot<void(View a, View alpha, View dy, Write write, MutView da, MutView dalpha)> scaled_add_backward{
      "scaled_add.backward"};
  /// Copies with conversion between f32 and bf16; strided inputs and outputs of the same shape are allowed.
  Slot<void(View x, MutView y)> copy{"copy"};
  /// y += x; x f32 or bf16, y f32; strided inputs and outputs of the same shape are allowed.
  Slot<void(View x, MutView y)> accumulate{"accumulate"};
  /// Sets every element of a contiguous f32, bf16 or f64 view.
  Slot<void(float value, MutView y)> fill{"fill"};
  /// y *= factor over a contiguous f32, bf16 or f64 view.
  Slot<void(float factor, MutView y)> scale{"scale"};
  /// sum[1] (f64) (= or +=) Σ a·b over f32 views, in a fixed order; an empty b stands for ones.
  Slot<void(View a, View b, Write write, MutView sum)> dot{"dot"};
};

Cost elementwise_cost(std::int64_t count, double flops_each, double bytes_each);

}  // namespace weft
