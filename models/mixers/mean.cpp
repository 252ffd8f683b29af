// y_t = W_out · mean_{i <= t} MLP(x_i) with MLP(x) = W_down GELU(W_up x).
#include "models/mixers/mean.hpp"

#include "core/nn/layers.hpp"
#include "core/ops/scan.hpp"
#include "parallel/layers/token_neighbours.hpp"

namespace weft {
namespace {

constexpr double init_deviation = 0.02;

class Mean final : public Mixer {
 public:
  Mean(const BuildContext& build, const MixerOptions& options)
      : width_(options.d_model), up_(build.build.child("up"), width_, width_, {options.bias, init_deviation}),
        down_(build.build.child("down"), width_, width_, {options.bias, init_deviation}),
        out_(build.build.child("out"), width_, width_, {options.bias, options.out_deviation}),
        neighbours_(token_neighbours(build)) {
    if (!options.causal) fail_user("--mixer: mean is causal alone");
  }

  MixerTraits traits() const override { return {.causal = true, .tokens_shardable = true, .unbounded = true}; }

  Tensor forward(OpContext& cx, const MixerInput& input, MixerState* state) const override {
    const Tensor values = down_.forward(cx, up_.forward(cx, input.x, Epilogue::gelu));
    ops::ScanOptions scan;
    scan.cell = ScanCell::mean;
    scan.steps_before = state ? state->length : cx.tokens.begin[0];
    scan.neighbours = neighbours_;
    const ops::Scanned scanned = ops::scan(cx, scan, values, {}, {}, state ? state->carried(0) : Tensor{});
    if (state) state->carry({scanned.final}, input.x.shape()[1]);
    return out_.forward(cx, scanned.h);
  }

  MixerState make_state(Allocator& memory, std::int64_t batch, std::int64_t, DType) const override {
    return {{Tensor::empty(memory, {batch, width_}, DType::f32, MemoryUse::activation)}, 0};
  }

 private:
  std::int64_t width_;
  nn::Linear up_, down_, out_;
  std::shared_ptr<const ops::SequenceNeighbours> neighbours_;
};

}  // namespace

std::unique_ptr<Mixer> make_mean(const BuildContext& build, const MixerOptions& options) {
  return std::make_unique<Mean>(build, options);
}

}  // namespace weft
