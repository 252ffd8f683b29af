// y = h·W_O with h = cell(x·W + b, R) over the tokens. The cell's biases are there in models without biases too: a gate
// without one could not start open.
#include "models/mixers/recurrent.hpp"

#include <cmath>
#include <optional>

#include "core/nn/layers.hpp"
#include "core/ops/recurrent.hpp"
#include "parallel/layers/token_relay.hpp"

namespace weft {
namespace {

class Recurrent final : public Mixer {
 public:
  Recurrent(const BuildContext& build, const MixerOptions& options, RecurrentCell cell)
      : cell_(cell), hidden_(options.d_model), relay_(build, cell == RecurrentCell::lstm ? 2 : 1, hidden_) {
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
    std::vector<Tensor> inputs, first;
    inputs.push_back(ops::linear(cx, input.x, *input_, input_bias_));
    if (state && state->length > 0) first = state->tensors;
    TokenRelay::Output out = relay_.run(
        cx, std::move(inputs), std::move(first),
        [this](OpContext& part, std::vector<Tensor> projected, const std::vector<Tensor>& before) {
          const ops::RecurrentState begin = {before.empty() ? Tensor{} : before[0],
                                             before.size() < 2 ? Tensor{} : before[1]};
          ops::RecurrentOutput end =
              ops::recurrent(part, cell_, std::move(projected[0]), *weight_, hidden_bias_, begin);
          TokenRelay::Output made{std::move(end.y), {std::move(end.last.h)}};
          if (end.last.c.defined()) made.last.push_back(std::move(end.last.c));
          return made;
        },
        [this, batch = input.x.shape()[0], dtype = input.x.dtype()](std::int64_t steps) {
          return std::pair{recurrent_cost(cell_, batch, steps, hidden_, dtype),
                           recurrent_backward_cost(cell_, batch, steps, hidden_, dtype)};
        });
    if (state) state->carry(std::move(out.last), input.x.shape()[1]);
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
  TokenRelay relay_;
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
