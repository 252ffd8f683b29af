// Z = x W1 (d → d′); with attention [K|V] = Z W2 and Y = LN(Z + α·softmax(Z Kᵀ/√d′)V), α = 0 at the start, else Y = LN(Z);
// U = dropout(Y) W3 (d′ → 3d), then the SRU with its highway over x. No positions and no biases. The state holds the keys and
// values of the tokens before, which are what the paper's memory of layer inputs is projected to.
#include "models/mixers/sru_plus_plus.hpp"

#include <algorithm>
#include <cmath>
#include <optional>

#include "core/nn/layers.hpp"
#include "core/ops/attention.hpp"
#include "models/mixers/sru_recurrence.hpp"
#include "parallel/layers/collective_pairs.hpp"
#include "parallel/layers/sequence_attention.hpp"

namespace weft {
namespace {

constexpr std::int64_t widest = 256;  // of a head
constexpr float highway_bias = -2;    // the paper's
constexpr float norm_eps = 1e-5f;

std::int64_t attention_width(const MixerOptions& options) {
  if (options.attention_width > widest)
    fail_user("--attention-width: found {}, at most {} is supported", options.attention_width, widest);
  if (options.attention_width > 0) return options.attention_width;
  return std::clamp<std::int64_t>((options.d_model / 8 + 7) / 8 * 8, 8, widest);
}

/// A product as the public implementation starts it, without a bias.
Parameter* product(const BuildContext& build, std::string_view name, const Slice& slice) {
  const auto sizes = static_cast<double>(slice.global_shape[0] + slice.global_shape[1]);
  const double bound = std::sqrt(6.0 / sizes);  // Glorot & Bengio 2010
  return &build.build.child(name).param("weight", slice, Init::uniform(bound));
}

class SruPlusPlus final : public Mixer {
 public:
  SruPlusPlus(const BuildContext& build, const MixerOptions& options)
      : group_(build), causal_(options.causal), dropout_(options.dropout), width_(options.d_model),
        narrow_(attention_width(options)),
        recurrence_(build, width_, SruRecurrence::Skip::input, causal_, {.highway_bias = highway_bias}),
        in_(product(build, "in", summed_slice(build, {narrow_, width_}))),
        norm_(build.build.child("norm"), NormKind::layer, summed_slice(build, {narrow_}), norm_eps),
        up_(product(build, "up", recurrence_.weight_slice(build, narrow_))) {
    if ((options.layer + 1) % options.attention_every == 0) {
      key_value_ = product(build, "kv", summed_slice(build, {2 * narrow_, narrow_}));
      alpha_ = &build.build.param("alpha", summed_slice(build, {1}), Init::zeros());
      if (build.mesh.size(Axis::sp) > 1) over_tokens_.emplace(build, ops::HeadLayout{1, 1, narrow_}, causal_);
    }
    attention_site_ = build.build.dropout_site();
    dropout_site_ = build.build.dropout_site();
  }

  MixerTraits traits() const override { return {.causal = causal_, .unbounded = alpha_ == nullptr}; }

  Tensor forward(OpContext& cx, const MixerInput& input, MixerState* state) const override {
    WEFT_CHECK(!state || causal_, "two directions carry no state");
    const Tensor x = gather_forward_sum_backward(cx, group_, input.x);
    Tensor z = ops::linear(cx, x, *in_, nullptr);
    if (alpha_) z = ops::scaled_add(cx, z, attend(cx, z, state), *alpha_);
    const Tensor y = ops::dropout(cx, norm_.forward(cx, z, {}).y, dropout_, dropout_site_);
    const ops::Scanned scanned = recurrence_.forward(cx, ops::linear(cx, y, *up_, nullptr), x, {}, state);
    if (state) {
      std::vector<Tensor> next = state->tensors;
      next[0] = scanned.final;
      state->carry(std::move(next), x.shape()[1]);
    }
    return channels_to_stream(cx, group_, scanned.h, width_);
  }

  MixerState make_state(Allocator& memory, std::int64_t batch, std::int64_t capacity, DType dtype) const override {
    MixerState state{{Tensor::empty(memory, {batch, recurrence_.held().size()}, DType::f32, MemoryUse::activation)}, 0};
    for (int i = 0; i < (alpha_ ? 2 : 0); ++i)
      state.tensors.push_back(Tensor::empty(memory, {batch, capacity, 1, narrow_}, dtype, MemoryUse::activation));
    return state;
  }

 private:
  Tensor attend(OpContext& cx, const Tensor& z, const MixerState* state) const {
    const ops::HeadLayout layout{1, 1, narrow_};
    const Tensor kv = ops::linear(cx, z, *key_value_, nullptr);
    const ops::AttentionOptions how{causal_, dropout_, attention_site_};
    if (over_tokens_) return over_tokens_->forward(cx, join_columns(cx, z, kv), how);
    if (!state) return ops::attention(cx, z, kv, layout, how);
    ops::KeyValueCache cache{state->tensors[1], state->tensors[2], state->length};
    return ops::attention_cached(cx, z, kv, layout, cache);
  }

  TensorGroup group_;
  bool causal_;
  float dropout_;
  std::int64_t width_, narrow_;
  SruRecurrence recurrence_;
  Parameter* in_;
  nn::Norm norm_;
  Parameter* up_;
  Parameter *key_value_ = nullptr, *alpha_ = nullptr;  ///< where the block attends
  std::optional<TokenParallelAttention> over_tokens_;
  int attention_site_ = 0, dropout_site_ = 0;
};

}  // namespace

std::unique_ptr<Mixer> make_sru_plus_plus(const BuildContext& build, const MixerOptions& options) {
  return std::make_unique<SruPlusPlus>(build, options);
}

}  // namespace weft
