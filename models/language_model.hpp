// A decoder-only language model: embeddings, blocks of one mixer, final norm, output head (Radford et al. 2019; Touvron et
// al. 2023).
#pragma once
#include <memory>
#include <optional>
#include <vector>

#include "core/ops/linear.hpp"
#include "models/block.hpp"
#include "parallel/layers/vocabulary.hpp"

namespace weft {

class LanguageModel {
 public:
  /// Throws UserError on a shape that does not fit (heads, sizes below 1).
  LanguageModel(const BuildContext& build, const LmConfig& config);

  const LmConfig& config() const { return config_; }
  int dropout_sites() const { return dropout_sites_; }

  /// Whether states go on for any number of tokens: neither they nor the positions grow with it.
  bool unbounded() const;

  /// tokens i32 [B, T] → final hidden states [B, T, D] after the last norm, whole on each tp rank.
  Tensor hidden(OpContext& cx, const Tensor& tokens, std::vector<MixerState>* states = nullptr) const;

  /// This rank's part of the mean loss; see ops::cross_entropy.
  ops::CrossEntropy loss(OpContext& cx, const Tensor& tokens, const ops::LossTargets& targets) const;

  /// Logits [M, V] of hidden states [M, D], in the context's compute dtype, on every rank; not recorded.
  Tensor logits(OpContext& cx, const Tensor& hidden) const;

  /// One state a layer, for `batch` sequences of at most `capacity` tokens.
  std::vector<MixerState> make_states(Allocator& memory, std::int64_t batch, std::int64_t capacity, DType dtype) const;

 private:
  LmConfig config_;
  TensorGroup group_;
  VocabularyTable tokens_;
  Parameter* positions_ = nullptr;
  std::vector<Block> blocks_;
  std::optional<nn::Norm> norm_;
  std::optional<VocabularyTable> head_;
  int embedding_dropout_site_ = 0;
  int dropout_sites_ = 0;
};

}  // namespace weft
