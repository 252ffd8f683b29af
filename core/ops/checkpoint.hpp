// A part of a forward pass of which backward keeps nothing but the inputs (Chen et al. 2016, "Training Deep Nets with
// Sublinear Memory Cost").
#pragma once
#include <functional>
#include <span>
#include <vector>

#include "core/ops/context.hpp"

namespace weft::ops {

/// Outputs of `forward` on `inputs`, which may be undefined. Where a tape records, backward runs it again, with the same
/// dropout; `forward` must outlive that.
inline std::vector<Tensor> checkpoint(OpContext& cx, std::vector<Tensor> inputs,
                                      std::function<std::vector<Tensor>(OpContext&, std::span<const Tensor>)> forward) {
  if (!cx.recording()) return forward(cx, inputs);
  return cx.tape->checkpoint(std::move(inputs),
                             [cx, forward = std::move(forward)](Tape& tape, std::span<const Tensor> in) {
                               OpContext again = cx;
                               again.tape = &tape;
                               return forward(again, in);
                             });
}

}  // namespace weft::ops
