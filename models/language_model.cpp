#include "models/language_model.hpp"

#include <algorithm>

#include "parallel/layers/collective_pairs.hpp"

namespace weft {
namespace {

const LmConfig& checked(const LmConfig& config) {
  const auto positive = [](std::string_view option, std::int64_t value) {
    if (value < 1) fail_user("--{}: found {}, expected 1 or more", option, value);
  };
  positive("layers", config.layers);
  positive("d-model", config.d_model);
  positive("heads", config.heads);
  positive("d-ff", config.d_ff);
  positive("attention-every", config.attention_every);
  positive("vocab", config.vocab);
  positive("seq", config.max_seq);
  return config;
}

}  // namespace

LanguageModel::LanguageModel(const BuildContext& build, const LmConfig& config)
    : config_(checked(config)), group_(build),
      tokens_(build.child("embed").child("tokens"), config.vocab, config.d_model, Init::normal(0.02)) {
  if (config.positions == PositionStyle::learned)
    positions_ = &build.child("embed").build.param("positions.weight", Slice::whole({config.max_seq, config.d_model}),
                                                   Init::normal(0.02));
  embedding_dropout_site_ = build.build.dropout_site();
  blocks_.reserve(static_cast<std::size_t>(config.layers));
  for (std::int64_t layer = 0; layer < config.layers; ++layer)
    blocks_.emplace_back(build.child("blocks", layer), config, layer);
  norm_.emplace(build.build.child("norm"), config.norm == NormStyle::layer ? NormKind::layer : NormKind::rms,
                group_.stream_slice({config.d_model}), config.norm_eps);
  if (config.tied) {
    head_ = tokens_;
    build.build.child("head").alias("weight", tokens_.parameter());
  } else {
    head_.emplace(build.child("head"), config.vocab, config.d_model, Init::normal(0.02));
  }
  dropout_sites_ = build.build.dropout_sites();
}

bool LanguageModel::unbounded() const {
  return config_.positions == PositionStyle::none &&
         std::ranges::all_of(blocks_, [](const Block& block) { return block.mixer().traits().unbounded; });
}

Tensor LanguageModel::hidden(OpContext& cx, const Tensor& tokens, std::vector<MixerState>* states) const {
  group_.open(cx, tokens.shape()[0], tokens.shape()[1], states != nullptr);
  ResidualStream stream;
  stream.x = embed(cx, group_, tokens, tokens_, positions_, {config_.dropout, embedding_dropout_site_, {}, true});
  for (std::size_t layer = 0; layer < blocks_.size(); ++layer)
    stream = blocks_[layer].forward(cx, stream, states ? &(*states)[layer] : nullptr);
  OpContext on_stream = cx.on_stream();
  return gather_forward_sum_backward(cx, group_,
                                     norm_->forward(on_stream, stream.x, stream.branch, stream.dropout).y);
}

ops::CrossEntropy LanguageModel::loss(OpContext& cx, const Tensor& tokens, const ops::LossTargets& targets) const {
  return cross_entropy(cx, group_, hidden(cx, tokens), *head_, targets);
}

Tensor LanguageModel::logits(OpContext& cx, const Tensor& hidden) const {
  return gather_logits(cx, group_, hidden, *head_);
}

std::vector<MixerState> LanguageModel::make_states(Allocator& memory, std::int64_t batch, std::int64_t capacity,
                                                   DType dtype) const {
  std::vector<MixerState> states;
  for (const Block& block : blocks_) states.push_back(block.mixer().make_state(memory, batch, capacity, dtype));
  return states;
}

}  // namespace weft
