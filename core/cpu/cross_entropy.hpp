// Softmax cross-entropy on a linear layer.
#pragma once
#include "core/cpu/linear_product.hpp"
#include "core/kernels/linear.hpp"

namespace weft::cpu {

/// LinearKernels::cross_entropy with the matrix kernels of one instruction set.
void cross_entropy(const MatrixKernels& kernels, ExecContext& exec, View h, const WeightRef& w, View targets,
                   View weights, float scale, Write write, MutView loss, MutView dh, MutView dw);

/// LinearKernels::shard_logits and shard_cross_entropy.
void shard_logits(const MatrixKernels& kernels, ExecContext& exec, View h, const WeightRef& w, View targets,
                  VocabShard shard, MutView logits, MutView stats);
void shard_cross_entropy(const MatrixKernels& kernels, ExecContext& exec, View h, const WeightRef& w, View targets,
                         View weights, float scale, VocabShard shard, View stats, Write write, MutView logits,
                         MutView loss, MutView dh, MutView dw);

}  // namespace weft::cpu
