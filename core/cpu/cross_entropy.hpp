// Softmax cross-entropy on a linear layer.
#pragma once
#include "core/cpu/linear_product.hpp"
#include "core/kernels/linear.hpp"

namespace weft::cpu {

/// LinearKernels::cross_entropy with the matrix kernels of one instruction set.
void cross_entropy(const MatrixKernels& kernels, ExecContext& exec, View h, const WeightRef& w, View targets,
                   View weights, float scale, Write write, MutView loss, MutView dh, MutView dw);

}  // namespace weft::cpu
