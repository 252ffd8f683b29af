// y = h·W_O with h = cell(x·W + b, R) over the tokens. The cell's biases are there in models without biases too: a gate
// without one could not start open.
#include "models/mixers/recurrent.hpp"

#include <cmath>
#include <optional>

#include "core/nn/layers.hpp"
#include "core/ops/recurrent.hpp"

namespace weft {
namespace {

class Recurrent final : public Mixer {
 public:
  Recurrent(const BuildContext& build, const MixerOptions& options, RecurrentCell cell)
      : cell_(cell), hidden_(options.d_model) {
    const std::int64_t width = gates_of(cell) * hidden_;
    const Init weight = Init::uniform(1 / std::sqrt(static_cast<double>(hidden_)));
    const Builder input = build.build.child("input"), hidden = build.build.child("hidden");
    input_ = &input.param("weight", Slice::whole({width, options.d_model}), weight);
    // Gates in the order input, forget, cell, output.
    const Init bias = cell == RecurrentCell::lstm ? Init::ones_in(hidden_, 2 * hidden_) : Init::zeros();
    input_bias_ = &input.param("bias", Slice::whole({width}), bias);
    weight_ = &hidden.param("weight", Slice::whole({width, hidden_}), weight);
    if (cell == RecurrentCell::gru) hidden_bias_ = &hidden.param("bias", Slice::whole({hidden_}), Init::zeros());
    out_.emplace(build.build.child("out"), hidden_, options.d_model,
                 nn::LinearOptions{options.bias, options.out_deviation});
  }

  MixerTraits traits() const override { return {.causal = true, .unbounded = true}; }

  Tensor forward(OpContext& cx, const MixerInput& input, MixerState* state) const override {
    const bool lstm = cell_ == RecurrentCell::lstm;
    ops::RecurrentState first;
    if (state) first = {state->carried(0), lstm ? state->carried(1) : Tensor{}};
    const ops::RecurrentOutput out =
        ops::recurrent(cx, cell_, ops::linear(cx, input.x, *input_, input_bias_), *weight_, hidden_bias_, first);
    if (state) state->carry(lstm ? std::vector{out.last.h, out.last.c} : std::vector{out.last.h}, input.x.shape()[1]);
    return out_->forward(cx, out.y);
  }

  MixerState make_state(Allocator& memory, std::int64_t batch, std::int64_t, DType) const override {
    MixerState state;
    for (int i = 0; i < (cell_ == RecurrentCell::lstm ? 2 : 1); ++i)
      state.tensors.push_back(Tensor::empty(memory, {batch, hidden_}, DType::f32, MemoryUse::activation));
    return state;
  }

 private:
  RecurrentCell cell_;
  std::int64_t hidden_;
  Parameter* input_;
  Parameter* input_bias_;
  Parameter* weight_;
  Parameter* hidden_bias_ = nullptr;
  std::optional<nn::Linear> out_;
};

}  // namespace

std::unique_ptr<Mixer> make_elman(const BuildContext& build, const MixerOptions& options) {
  return std::make_unique<Recurrent>(build, options, RecurrentCell::elman);
}
std::unique_ptr<Mixer> make_lstm(const BuildContext& build, const MixerOptions& options) {
  return std::make_unique<Recurrent>(build, options, RecurrentCell::lstm);
}
std::unique_ptr<Mixer> make_gru(const BuildContext& build, const MixerOptions& options) {
  return std::make_unique<Recurrent>(build, options, RecurrentCell::gru);
}

}  // namespace weft
