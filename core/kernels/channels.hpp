// What acts on the channels of rows [M, ..] alike in every row: gates that are the same for all tokens, and the Boom layer's
// sum of chunks (both Merity 2019, "Single Headed Attention RNN").
#pragma once
#include "core/kernels/slot.hpp"

namespace weft {

enum class GateFunction : std::uint8_t { sigmoid, tanh };

struct ChannelKernels {
  /// y[M,D] = g⊙x with one gate for all rows, g = σ(a)⊙φ(b); ab f32[2D] = a|b.
  Slot<void(GateFunction phi, View x, View ab, MutView y)> gate{"channel_gate.forward"};
  /// dx[M,D] = g⊙dy; dab f32[2D] (=) from Σ over rows of x⊙dy, in a fixed order.
  Slot<void(GateFunction phi, View x, View ab, View dy, MutView dx, MutView dab)> gate_backward{
      "channel_gate.backward"};
  /// y[M,D] = Σ_i GELU(x_i) (tanh form) over the chunks x_i[M,D] of x[M,n·D].
  Slot<void(View x, MutView y)> boom{"boom.forward"};
  Slot<void(View x, View dy, MutView dx)> boom_backward{"boom.backward"};
};

}  // namespace weft
