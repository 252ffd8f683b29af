// What the files of the linear kernels share.
#pragma once
#include "core/kernels/matrix_view.hpp"
#include "core/kernels/linear.hpp"

namespace weft::cuda {

/// Zeros to an f32 matrix.
void zero(ExecContext& exec, const Matrix& matrix);

/// The slot linear.cross_entropy.
void cross_entropy(ExecContext& exec, View h, WeightRef w, View targets, View weights, float scale, Write write,
                   MutView loss, MutView dh, MutView dw);

}  // namespace weft::cuda
