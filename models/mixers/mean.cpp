// y_t = W_out · mean_{i <= t} MLP(x_i) with MLP(x) = W_down GELU(W_up x). W_down comes after the mean, which is then over a
// rank's own channels, and W_out takes the rows of the stream that the rank holds.
#include "models/mixers/mean.hpp"

#include "core/ops/scan.hpp"
#include "parallel/layers/channels.hpp"
#include "parallel/layers/token_neighbours.hpp"

namespace weft {
namespace {

constexpr double init_deviation = 0.02;

class Mean final : public Mixer {
 public:
  Mean(const BuildContext& build, const MixerOptions& options)
      : held_(held_channels(build, options.d_model)),
        up_(build.child("up"), options.d_model, options.d_model, {{held_}}, {options.bias, init_deviation}),
        down_(build.child("down"), options.d_model, options.d_model, held_, {options.bias, init_deviation}),
        neighbours_(token_neighbours(build)) {
    const TensorGroup group(build);
    const Builder out = build.build.child("out");
    const Shape square{options.d_model, options.d_model};
    weight_ = &out.param("weight", group.stream_slice(square), Init::normal(options.out_deviation));
    if (options.bias) bias_ = &out.param("bias", group.stream_slice({options.d_model}), Init::zeros());
    if (!options.causal) fail_user("--mixer: mean is causal alone");
  }

  MixerTraits traits() const override { return {.causal = true, .unbounded = true}; }

  Tensor forward(OpContext& cx, const MixerInput& input, MixerState* state) const override {
    const Tensor values = up_.forward(cx, input.x, Epilogue::gelu);
    ops::ScanOptions scan;
    scan.cell = ScanCell::mean;
    scan.steps_before = state ? state->length : cx.tokens.begin[0];
    scan.neighbours = neighbours_;
    const ops::Scanned scanned = ops::scan(cx, scan, values, {}, {}, state ? state->carried(0) : Tensor{});
    if (state) state->carry({scanned.final}, values.shape()[1]);
    return ops::linear(cx, down_.forward(cx, scanned.h), *weight_, bias_);
  }

  MixerState make_state(Allocator& memory, std::int64_t batch, std::int64_t, DType) const override {
    return {{Tensor::empty(memory, {batch, held_.size()}, DType::f32, MemoryUse::activation)}, 0};
  }

 private:
  Range held_;  ///< channels of this rank
  ColumnLinear up_;
  RowLinear down_;
  Parameter* weight_;
  Parameter* bias_ = nullptr;
  std::shared_ptr<const ops::SequenceNeighbours> neighbours_;
};

}  // namespace

std::unique_ptr<Mixer> make_mean(const BuildContext& build, const MixerOptions& options) {
  return std::make_unique<Mean>(build, options);
}

}  // namespace weft
