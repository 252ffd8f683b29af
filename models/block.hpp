// A pre-norm block: x += mixer(norm(x)); x += feed_forward(norm(x)). Or plain, the mixer alone.
#pragma once
#include <memory>
#include <optional>

#include "core/nn/layers.hpp"
#include "models/config.hpp"
#include "models/mixers/mixer.hpp"
#include "parallel/layers/linear.hpp"

namespace weft {

/// The residual stream between two norms: its value is x + dropout(branch), and the next norm takes that sum, so that the
/// sum, its dropout and the norm are one pass over memory.
struct ResidualStream {
  Tensor x;
  Tensor branch;  ///< undefined at the first norm
  ops::ResidualDropout dropout;
};

/// W_down·GELU(W_up·x), W_down·(silu(gate)·up) (Shazeer 2020), or the sum of GELU(W_up·x)'s chunks (Merity 2019).
class FeedForward {
 public:
  FeedForward(const BuildContext& build, const LmConfig& config, double out_deviation);
  Tensor forward(OpContext& cx, const Tensor& x) const;

 private:
  FeedForwardStyle style_;
  std::int64_t width_;
  TensorGroup group_;
  ColumnLinear up_;
  std::optional<RowLinear> down_;  ///< not in boom
};

class Block {
 public:
  Block(const BuildContext& build, const LmConfig& config, std::int64_t layer);
  ResidualStream forward(OpContext& cx, const ResidualStream& in, MixerState* state) const;
  const Mixer& mixer() const { return *mixer_; }

 private:
  ResidualStream run(OpContext& cx, const ResidualStream& in, MixerState* state) const;
  Tensor mix(OpContext& cx, const Tensor& x, MixerState* state) const;

  // A plain block has the mixer alone.
  std::optional<nn::Norm> norm1_;
  std::unique_ptr<Mixer> mixer_;
  std::optional<nn::Norm> norm2_;
  std::optional<FeedForward> feed_forward_;
  ops::ResidualDropout mixer_dropout_;
  ops::ResidualDropout feed_forward_dropout_;
};

}  // namespace weft
