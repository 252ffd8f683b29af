// h = LSTM(LN(x)); where the block attends h += dropout(gate⊙softmax(q kᵀ/√d)m), with m = LN(h), also of the tokens before,
// k = σ(ks)⊙m, q = σ(qs)⊙LN(hW_q + b) and gate = σ(F vs + b_F)⊙tanh(C vs + b_C); y = LN(h) + dropout(Boom(LN(h))) with
// Boom(x) the sum of the four chunks of GELU(xW + b). No norm shares its gain with another.
//
// σ(ks) stands on the queries' side of the scores, and the values' gate, the same for all tokens, behind their weighted sum: so
// keys and values are the rows m themselves, and the state holds them once.
#include "models/mixers/sha_rnn.hpp"

#include <cmath>
#include <optional>

#include "core/nn/layers.hpp"
#include "core/ops/attention.hpp"
#include "core/ops/channels.hpp"
#include "core/ops/recurrent.hpp"

namespace weft {
namespace {

constexpr std::int64_t boom_chunks = 4;
constexpr float norm_eps = 1e-5f;
constexpr double init_deviation = 0.02;

/// As many units as inputs.
class Lstm {
 public:
  Lstm(const BuildContext& build, std::int64_t width) {
    const Builder input = build.build.child("input"), hidden = build.build.child("hidden");
    const Init weight = Init::uniform(1 / std::sqrt(static_cast<double>(width)));
    input_ = &input.param("weight", Slice::whole({4 * width, width}), weight);
    // Gates in the order input, forget, cell, output.
    bias_ = &input.param("bias", Slice::whole({4 * width}), Init::ones_in(width, 2 * width));
    weight_ = &hidden.param("weight", Slice::whole({4 * width, width}), weight);
  }

  ops::RecurrentOutput forward(OpContext& cx, const Tensor& x, const ops::RecurrentState& first) const {
    return ops::recurrent(cx, RecurrentCell::lstm, ops::linear(cx, x, *input_, bias_), *weight_, nullptr, first);
  }

 private:
  Parameter *input_, *bias_, *weight_;
};

/// The LSTM's states [B, T, D] → what attention adds to them, before its dropout.
class Attention {
 public:
  Attention(const BuildContext& build, const MixerOptions& options)
      : memory_norm_(build.build.child("memory_norm"), NormKind::layer, options.d_model, norm_eps),
        query_(build.build.child("query"), options.d_model, options.d_model, {options.bias, init_deviation}),
        query_norm_(build.build.child("query_norm"), NormKind::layer, options.d_model, norm_eps),
        // One-dimensional, so that no weight decay pulls at the gates.
        score_gates_(&build.build.param("score_gates", Slice::whole({2 * options.d_model}), Init::zeros())),
        value_vector_(&build.build.param("value_vector", Slice::whole({options.d_model}), Init::zeros())),
        value_gates_(build.build.child("value_gates"), options.d_model, 2 * options.d_model,
                     {options.bias, init_deviation}) {
    if (options.d_model > ops::widest_head)
      fail_user("--d-model: found {}; sha-rnn attends with one head of that width, at most {} is supported",
                options.d_model, ops::widest_head);
  }

  Tensor forward(OpContext& cx, const Tensor& h, const MixerState* state) const {
    const Tensor memory = memory_norm_.forward(cx, h, {}).y;
    const Tensor q = ops::channel_gate(cx, GateFunction::sigmoid, query_norm_.forward(cx, query_.forward(cx, h), {}).y,
                                       ops::parameter_row(cx, *score_gates_));
    const Tensor gates = value_gates_.forward(cx, ops::parameter_row(cx, *value_vector_));
    return ops::channel_gate(cx, GateFunction::tanh, attend(cx, q, memory, state), gates);
  }

 private:
  static Tensor attend(OpContext& cx, const Tensor& q, const Tensor& memory, const MixerState* state) {
    if (!state) return ops::memory_attention(cx, q, memory, {.causal = true});
    ops::KeyValueCache cache{state->tensors[2], state->tensors[2], state->length};
    return ops::memory_attention_cached(cx, q, memory, cache);
  }

  nn::Norm memory_norm_;
  nn::Linear query_;
  nn::Norm query_norm_;
  Parameter* score_gates_;   ///< qs|ks
  Parameter* value_vector_;  ///< vs
  nn::Linear value_gates_;   ///< F|C
};

class ShaRnn final : public Mixer {
 public:
  ShaRnn(const BuildContext& build, const MixerOptions& options)
      : width_(options.d_model), dropout_(options.dropout), norm_in_(norm(build, "norm_in")),
        lstm_(build.child("lstm"), width_), norm_boom_(norm(build, "norm_boom")), norm_out_(norm(build, "norm_out")),
        boom_(build.build.child("boom"), width_, boom_chunks * width_, {options.bias, init_deviation}) {
    if ((options.layer + 1) % options.attention_every == 0) attention_.emplace(build.child("attention"), options);
    attention_site_ = build.build.dropout_site();
    boom_site_ = build.build.dropout_site();
  }

  MixerTraits traits() const override { return {.causal = true, .unbounded = !attention_}; }

  Tensor forward(OpContext& cx, const MixerInput& input, MixerState* state) const override {
    ops::RecurrentState first;
    if (state) first = {state->carried(0), state->carried(1)};
    const ops::RecurrentOutput lstm = lstm_.forward(cx, norm_in_.forward(cx, input.x, {}).y, first);
    const Tensor attended = attention_ ? attention_->forward(cx, lstm.y, state) : Tensor{};
    if (state) {
      std::vector<Tensor> next = state->tensors;
      next[0] = lstm.last.h;
      next[1] = lstm.last.c;
      state->carry(std::move(next), input.x.shape()[1]);
    }
    const ops::Normed normed = norm_boom_.forward(cx, lstm.y, attended, {dropout_, attention_site_});
    const Tensor fed = ops::boom(cx, boom_.forward(cx, normed.y), width_);
    return ops::add(cx, norm_out_.forward(cx, normed.sum, {}).y, ops::dropout(cx, fed, dropout_, boom_site_));
  }

  MixerState make_state(Allocator& memory, std::int64_t batch, std::int64_t capacity, DType dtype) const override {
    MixerState state;
    for (int i = 0; i < 2; ++i)
      state.tensors.push_back(Tensor::empty(memory, {batch, width_}, DType::f32, MemoryUse::activation));
    if (attention_)
      state.tensors.push_back(Tensor::empty(memory, {batch, capacity, 1, width_}, dtype, MemoryUse::activation));
    return state;
  }

 private:
  nn::Norm norm(const BuildContext& build, std::string_view name) const {
    return {build.build.child(name), NormKind::layer, width_, norm_eps};
  }

  std::int64_t width_;
  float dropout_;
  nn::Norm norm_in_;
  Lstm lstm_;
  std::optional<Attention> attention_;
  nn::Norm norm_boom_, norm_out_;
  nn::Linear boom_;
  int attention_site_ = 0, boom_site_ = 0;
};

}  // namespace

std::unique_ptr<Mixer> make_sha_rnn(const BuildContext& build, const MixerOptions& options) {
  return std::make_unique<ShaRnn>(build, options);
}

}  // namespace weft
