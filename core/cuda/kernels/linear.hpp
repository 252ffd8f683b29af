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

/// The slots linear.shard_logits and linear.shard_cross_entropy.
void shard_logits(ExecContext& exec, View h, WeightRef w, View targets, VocabShard shard, MutView logits,
                  MutView stats);
void shard_cross_entropy(ExecContext& exec, View h, WeightRef w, View targets, View weights, float scale,
                         VocabShard shard, View stats, Write write, MutView logits, MutView loss, MutView dh,
                         MutView dw);

}  // namespace weft::cuda
