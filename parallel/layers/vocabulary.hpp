// Embedding and output head over a vocabulary that is sharded over the tensor-parallel ranks (section 3 of Shoeybi et al.
// 2019): no rank ever holds all logits of the loss.
#pragma once
#include "core/ops/embedding.hpp"
#include "core/ops/linear.hpp"
#include "parallel/layers/tensor_group.hpp"

namespace weft {

/// A table [vocabulary, width] by rows: token embeddings, an output head, or both (tied).
class VocabularyTable {
 public:
  VocabularyTable(const BuildContext& build, std::int64_t vocabulary, std::int64_t width, Init init);
  Parameter& parameter() const { return *weight_; }
  /// The rows that this rank holds; for the whole table in a group of one.
  VocabShard shard() const { return shard_; }

 private:
  Parameter* weight_;
  VocabShard shard_;
};

/// tokens i32[B, T] → the stream, dropout(table[token] + positions[position]). `positions` may be null; `options` say dropout's
/// probability and site.
Tensor embed(OpContext& cx, const TensorGroup& group, const Tensor& tokens, const VocabularyTable& table,
             Parameter* positions, ops::EmbeddingOptions options);

/// ops::cross_entropy of h [.., D], the same on all ranks. Ranks exchange two numbers a row: the log of their sum of
/// exponentials, and the target's logit. The gradient of h is this rank's part of the sum.
ops::CrossEntropy cross_entropy(OpContext& cx, const TensorGroup& group, const Tensor& h, const VocabularyTable& table,
                                const ops::LossTargets& targets);

/// All logits [M, vocabulary] of h [M, D] on every rank; not recorded, for sampling.
Tensor gather_logits(OpContext& cx, const TensorGroup& group, const Tensor& h, const VocabularyTable& table);

}  // namespace weft
