// y = h·W_O with h = cell(x·W + b, R) over the tokens. The cell's biases are there in models without biases too: a gate
// without one could not start open.
#include "models/mixers/recurrent.hpp"

#include <cmath>
#include <optional>

#include "core/ops/recurrent.hpp"
#include "parallel/layers/channels.hpp"
#include "parallel/layers/token_relay.hpp"
#include "parallel/layers/unit_exchange.hpp"

namespace weft {
namespace {

LinearInit input_init(RecurrentCell cell, std::int64_t hidden, const Init& weight) {
  // Gates in the order input, forget, cell, output.
  return {weight, cell == RecurrentCell::lstm ? Init::ones_in(hidden, 2 * hidden) : Init::zeros()};
}

Init recurrent_init(std::int64_t hidden) { return Init::uniform(1 / std::sqrt(static_cast<double>(hidden))); }

std::int64_t states_of(RecurrentCell cell) { return cell == RecurrentCell::lstm ? 2 : 1; }

class Recurrent final : public Mixer {
 public:
  Recurrent(const BuildContext& build, const MixerOptions& options, RecurrentCell cell)
      : cell_(cell), hidden_(options.d_model), held_(held_channels(build, hidden_)),
        relay_(build, states_of(cell), held_.size()), others_(unit_exchange(build, hidden_)),
        input_(build.child("input"), options.d_model, gates_of(cell) * hidden_,
               channel_rows(held_, gates_of(cell), hidden_), input_init(cell, hidden_, recurrent_init(hidden_))) {
    const Builder hidden = build.build.child("hidden");
    weight_ = &hidden.param("weight", channel_slice(build, {gates_of(cell) * hidden_, hidden_}, hidden_),
                            recurrent_init(hidden_));
    if (cell == RecurrentCell::gru)
      hidden_bias_ = &hidden.param("bias", channel_slice(build, {hidden_}, hidden_), Init::zeros());
    out_.emplace(build.child("out"), hidden_, options.d_model, held_,
                 nn::LinearOptions{options.bias, options.out_deviation});
  }

  MixerTraits traits() const override { return {.causal = true, .unbounded = true}; }

  Tensor forward(OpContext& cx, const MixerInput& input, MixerState* state) const override {
    std::vector<Tensor> inputs, first;
    inputs.push_back(input_.forward(cx, input.x));
    const std::int64_t sequences = inputs[0].shape()[0], tokens = inputs[0].shape()[1];
    if (state && state->length > 0) first = state->tensors;
    TokenRelay::Output out = relay_.run(
        cx, std::move(inputs), std::move(first),
        [this](OpContext& part, std::vector<Tensor> projected, const std::vector<Tensor>& before) {
          const ops::RecurrentState begin = {before.empty() ? Tensor{} : before[0],
                                             before.size() < 2 ? Tensor{} : before[1]};
          ops::RecurrentOutput end =
              ops::recurrent(part, cell_, std::move(projected[0]), *weight_, hidden_bias_, begin, others_);
          TokenRelay::Output made{std::move(end.y), {std::move(end.last.h)}};
          if (end.last.c.defined()) made.last.push_back(std::move(end.last.c));
          return made;
        },
        [this, batch = sequences, dtype = input.x.dtype()](std::int64_t steps) {
          return std::pair{recurrent_cost(cell_, batch, steps, held_.size(), hidden_, dtype),
                           recurrent_backward_cost(cell_, batch, steps, held_.size(), hidden_, dtype)};
        });
    if (state) state->carry(std::move(out.last), tokens);
    return out_->forward(cx, out.y);
  }

  MixerState make_state(Allocator& memory, std::int64_t batch, std::int64_t, DType) const override {
    MixerState state;
    for (std::int64_t i = 0; i < states_of(cell_); ++i)
      state.tensors.push_back(Tensor::empty(memory, {batch, held_.size()}, DType::f32, MemoryUse::activation));
    return state;
  }

 private:
  RecurrentCell cell_;
  std::int64_t hidden_;
  Range held_;  ///< units of this rank, with all their gates
  TokenRelay relay_;
  std::shared_ptr<const ops::UnitExchange> others_;
  ColumnLinear input_;
  Parameter* weight_;
  Parameter* hidden_bias_ = nullptr;
  std::optional<RowLinear> out_;
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
