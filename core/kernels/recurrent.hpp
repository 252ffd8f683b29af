// Recurrences that are not linear in their state, so that each step waits for the one before: Elman's network (Elman
// 1990), the LSTM (Hochreiter & Schmidhuber 1997; Gers et al. 2000) and the GRU (Cho et al. 2014, in the form of cuDNN).
//
//   elman  h = tanh(p + h⁻Rᵀ)
//   lstm   [i,f,z,o] = p + h⁻Rᵀ;  c = σ(f)·c⁻ + σ(i)·tanh(z);  h = σ(o)·tanh(c)
//   gru    [r,u] = σ(p + h⁻Rᵀ);  n = tanh(p_n + r·q), q = h⁻R_nᵀ + b;  h = (1−u)·n + u·h⁻
//
// B sequences, T steps, H units, G gates in the order above (1, 4, 3). p = x·Wᵀ + bias of all steps comes in as one
// product. Activations are all f32 or all bf16; states and their gradients are f32. The state that a step multiplies
// by R is rounded to the activations' dtype, the one that it carries on is not.
#pragma once
#include "core/kernels/linear.hpp"

namespace weft {

enum class RecurrentCell : std::uint8_t { elman, lstm, gru };

constexpr std::int64_t gates_of(RecurrentCell cell) {
  return cell == RecurrentCell::elman ? 1 : cell == RecurrentCell::lstm ? 4 : 3;
}

struct RecurrentForward {
  RecurrentCell cell = RecurrentCell::lstm;
  View projected;         ///< p [B,T,G·H]
  WeightRef weight;       ///< R [G·H,H]
  View hidden_bias;       ///< gru: b f32[H]; empty: zeros
  View h_first, c_first;  ///< f32 [B,H], c for the lstm alone; empty: zeros
  MutView gates;      ///< [B,T,G·H] after their activation, for backward; may be projected's memory; empty: not kept
  MutView candidate;  ///< gru: q [B,T,H], kept with gates
  MutView cells;      ///< lstm: c f32 [B,T,H], kept with gates
  MutView y;          ///< h [B,T,H]
  MutView h_last, c_last;  ///< f32 [B,H]; may be h_first's and c_first's memory
};

struct RecurrentBackward {
  RecurrentCell cell = RecurrentCell::lstm;
  View gates, candidate, cells, y;  ///< as forward left them
  WeightRef weight;
  View h_first, c_first;
  View dy;                ///< [B,T,H]
  View dh_last, dc_last;  ///< f32 [B,H]; empty: zeros
  MutView dgates;         ///< gradient of p; may be gates' memory
  MutView dhidden;  ///< gru: gradient of h⁻Rᵀ + b [B,T,3H], from which dR and db come; elsewhere dgates is both
  MutView dh_first, dc_first;  ///< f32 [B,H]; may be empty
};

struct RecurrentKernels {
  Slot<void(RecurrentForward)> forward{"recurrent.forward"};
  /// Gradients of the gates of all steps; dR = Σ dgatesᵀ·h⁻ is a product over all steps, which the caller takes.
  Slot<void(RecurrentBackward)> backward{"recurrent.backward"};

  /// One step of U of the H units, with all gates of each, where others have the rest: whatever has H units above has U, R
  /// is [G·U,H], and before [B,T,H] is what steps multiply by R: h⁻ of all units in the activations' dtype. Steps come in
  /// order; c_last (gru: h_last) is what goes from one to the next.
  Slot<void(RecurrentForward, std::int64_t step, View before)> forward_step{"recurrent.forward_step"};
  /// The same backward, from the last step on. dh f32 [B,U] is the gradient of h from the step after, empty: zeros; carry f32
  /// [B,U] (lstm: gradient of c, gru: of h past R) goes from step to step and begins as dc_last or zeros; dh_before f32 [B,H]
  /// = these units' part of the gradient of h⁻ through R, empty: not wanted. dh_last, dh_first and dc_first are not read.
  Slot<void(RecurrentBackward, std::int64_t step, View dh, MutView carry, MutView dh_before)> backward_step{
      "recurrent.backward_step"};
};

/// Cost of one pass over T steps of `units` of the hidden units without the products over all steps. It runs as T dependent
/// levels; forward allows no fewer, backward is linear in the gradient, so a scan of its Jacobians would need ⌈log2 T⌉ + 1.
Cost recurrent_cost(RecurrentCell cell, std::int64_t batch, std::int64_t steps, std::int64_t units, std::int64_t hidden,
                    DType dtype);
Cost recurrent_backward_cost(RecurrentCell cell, std::int64_t batch, std::int64_t steps, std::int64_t units,
                             std::int64_t hidden, DType dtype);

}  // namespace weft
