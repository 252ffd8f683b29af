// What collectives need of a device beside its links: the local part of a reduction, and marks in a queue that the host
// sees.
#pragma once
#include "core/kernels/slot.hpp"

namespace weft {

enum class ReduceOp : std::uint8_t { sum, max, min };

struct CollectiveKernels {
  /// out[n] = op over p of parts[p, n], in the order of the parts; f32, bf16, f64, i32, i64 and u8. Sums of bf16 are taken
  /// in f32 and rounded once, or not at all where out is f32. NaN wins in max and min. `out` may be one of the parts.
  Slot<void(ReduceOp op, View parts, MutView out)> reduce{"collective.reduce"};
  /// Adds one to counter[1] (i64, in Device::host_memory()) when the queue gets there. One queue has a counter to itself;
  /// the host may read it at any time.
  Slot<void(MutView counter)> count{"collective.count"};
};

}  // namespace weft
