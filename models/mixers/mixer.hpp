// A sequence mixer: what carries information between the tokens of a sequence.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "core/ops/context.hpp"
#include "parallel/build_context.hpp"

namespace weft {

/// What a mixer may read of the model around it.
struct MixerOptions {
  std::int64_t d_model = 0;
  std::int64_t heads = 1;
  std::int64_t kv_heads = 1;
  bool causal = true;
  bool bias = true;
  float rotary_theta = 0;   ///< 0: no rotary positions
  float dropout = 0;        ///< inside the mixer (attention probabilities)
  double out_deviation = 0.02;  ///< initial deviation of the projection into the residual stream
};

/// What a mixer keeps from one call to the next: between segments, for decoding (the key-value cache), over ranks, and in
/// checkpoints. `length` tokens have gone through; set to 0, the state is an empty one again. Tensors are off the tape.
struct MixerState {
  std::vector<Tensor> tensors;
  std::int64_t length = 0;
};

/// How a mixer can be spread, and what it may see.
struct MixerTraits {
  bool causal = true;
  bool heads_shardable = false;  ///< over tp by heads
  /// Takes a state while recording: gradients go back to the segment's first token and stop at the carried state.
  bool trains_on_segments = false;
};

/// x [B, T, d_model]. Positions of the local tokens stand in the operation context's token map.
struct MixerInput {
  const Tensor& x;
};

class Mixer {
 public:
  virtual ~Mixer() = default;
  virtual MixerTraits traits() const = 0;
  /// → [B, T, d_model]. With a state, the input continues what the state has seen, and the state moves on.
  virtual Tensor forward(OpContext& cx, const MixerInput& input, MixerState* state) const = 0;
  /// An empty state for `batch` sequences of at most `capacity` tokens.
  virtual MixerState make_state(Allocator& memory, std::int64_t batch, std::int64_t capacity, DType dtype) const = 0;
};

}  // namespace weft
