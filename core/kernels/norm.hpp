// Layer norm (Ba et al. 2016) and RMS norm (Zhang & Sennrich 2019), fused with the residual sum and its dropout.
#pragma once
#include "core/kernels/dropout.hpp"
#include "core/kernels/slot.hpp"

namespace weft {

enum class NormKind : std::uint8_t { layer, rms };

struct NormKernels {
  /// sum = x + dropout(branch), y = norm(sum)·gain + bias. Rows M, D columns. With an empty branch sum must be empty and
  /// y = norm(x). gain[D], bias[D] f32 (bias empty for RMS); mean[M], rstd[M] f32 are saved for backward and may be empty
  /// (mean always is for RMS).
  Slot<void(NormKind kind, View x, View branch, DropoutSpec dropout, View gain, View bias, float eps, MutView sum,
            MutView y, MutView mean, MutView rstd)>
      forward{"norm.forward"};
  /// dx = gradient of the norm's input (the sum) through y, plus dsum if that is not empty. dbranch = dropout'(dx) if it
  /// is not empty (without dropout the caller shares dx instead). dgain, dbias f32 (= or +=), reduced in a fixed order.
  Slot<void(NormKind kind, View dy, View sum, View gain, View mean, View rstd, View dsum, DropoutSpec dropout,
            Write write, MutView dx, MutView dbranch, MutView dgain, MutView dbias)>
      backward{"norm.backward"};
};

Cost norm_cost(std::int64_t rows, std::int64_t cols, DType dtype);

}  // namespace weft
