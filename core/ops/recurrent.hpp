// Elman's network, the LSTM and the GRU over all steps of a sequence; see core/kernels/recurrent.hpp for equations.
#pragma once
#include <memory>

#include "core/ops/context.hpp"
#include "core/ops/unit_exchange.hpp"

namespace weft::ops {

/// What goes from one step to the next: f32 [B, U]; c for the LSTM alone. Undefined: zeros.
struct RecurrentState {
  Tensor h, c;
};

struct RecurrentOutput {
  Tensor y;  ///< h of all steps [B, T, U]
  RecurrentState last;
};

/// projected [B, T, G·U] = x·Wᵀ + b; weight R [G·U, H]; hidden_bias [U] for the GRU, may be null; U units are here, all H
/// without `others`, which the steps' states are exchanged with, once a step in either pass. Takes the projection's
/// memory for the gates where it was moved in. When nothing is recorded and `first` is there, the last state takes the
/// first one's memory. The states are on the tape like other values: a caller that cuts sequences into segments detaches
/// them.
RecurrentOutput recurrent(OpContext& cx, RecurrentCell cell, Tensor projected, Parameter& weight,
                          Parameter* hidden_bias, const RecurrentState& first = {},
                          const std::shared_ptr<const UnitExchange>& others = nullptr);

}  // namespace weft::ops
