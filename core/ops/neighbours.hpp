// What an operation on a part of each sequence needs of the parts beside it, which others hold.
#pragma once
#include "core/kernels/exec.hpp"
#include "core/tensor/tensor.hpp"

namespace weft::ops {

/// The parts lie in the order of the tokens. All that hold one call the same functions in the same order.
class SequenceNeighbours {
 public:
  virtual ~SequenceNeighbours() = default;
  /// The state f32[B, D] before this part, from every part's summary f32[2, B, D] (ScanKernels::summary).
  virtual Tensor state_before(ExecContext& exec, const Tensor& summary) const = 0;
  /// The gradient of the state after this part, from every part's ScanKernels::backward_summary.
  virtual Tensor state_gradient_after(ExecContext& exec, const Tensor& summary) const = 0;
  /// The part before's `last`, zeros for the first part.
  virtual Tensor inputs_before(ExecContext& exec, const Tensor& last) const = 0;
  /// Gives inputs_before's gradient back; returns that of `last`, zeros for the last part.
  virtual Tensor inputs_gradient(ExecContext& exec, const Tensor& dbefore) const = 0;
};

}  // namespace weft::ops
