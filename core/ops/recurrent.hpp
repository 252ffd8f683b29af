// Elman's network, the LSTM and the GRU over all steps of a sequence; see core/kernels/recurrent.hpp for equations.
#pragma once
#include "core/ops/context.hpp"

namespace weft::ops {

/// What goes from one step to the next: f32 [B, H]; c for the LSTM alone. Undefined: zeros.
struct RecurrentState {
  Tensor h, c;
};

struct RecurrentOutput {
  Tensor y;  ///< h of all steps [B, T, H]
  RecurrentState last;
};

/// projected [B, T, G·H] = x·Wᵀ + b; weight R [G·H, H]; hidden_bias [H] for the GRU, may be null. Takes the projection's
/// memory for the gates where it was moved in. When nothing is recorded and `first` is there, the last state takes the
/// first one's memory. The states are on the tape like other values: a caller that cuts sequences into segments detaches
/// them.
RecurrentOutput recurrent(OpContext& cx, RecurrentCell cell, Tensor projected, Parameter& weight,
                          Parameter* hidden_bias, const RecurrentState& first = {});

}  // namespace weft::ops
