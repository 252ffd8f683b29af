// What a recurrence over some of its hidden units needs of those who have the others.
#pragma once
#include "core/kernels/exec.hpp"
#include "core/tensor/view.hpp"

namespace weft::ops {

/// B sequences, U of the H units here; shares lie in the order of the units. All that have one call the same functions in the
/// same order.
class UnitExchange {
 public:
  virtual ~UnitExchange() = default;
  /// all [B, H] = everybody's own [B, U], in all's dtype. Rows of both may lie apart.
  virtual void gather(ExecContext& exec, View own, MutView all) const = 0;
  /// own f32 [B, U] = these units of the sum of everybody's partial f32 [B, H].
  virtual void sum(ExecContext& exec, View partial, MutView own) const = 0;
};

}  // namespace weft::ops
