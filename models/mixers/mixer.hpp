// A sequence mixer: what carries information between the tokens of a sequence.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/ops/context.hpp"
#include "parallel/build_context.hpp"

namespace weft {

/// What a mixer may read of the model around it.
struct MixerOptions {
  std::int64_t d_model = 0;
  std::int64_t heads = 1;
  std::int64_t kv_heads = 1;
  std::int64_t layer = 0;            ///< which block the mixer stands in
  std::int64_t attention_every = 1;  ///< SRU++, SHA-RNN: attention where (layer + 1) mod attention_every = 0
  std::int64_t attention_width = 0;  ///< SRU++; 0: d_model / 8
  bool causal = true;
  bool bias = true;
  float rotary_theta = 0;       ///< 0: no rotary positions
  float dropout = 0;            ///< inside the mixer (attention probabilities)
  double out_deviation = 0.02;  ///< initial deviation of the projection into the residual stream
};

/// What a mixer keeps from one call to the next: between segments, for decoding (the key-value cache), over ranks, and in
/// checkpoints. `length` tokens have gone through.
struct MixerState {
  std::vector<Tensor> tensors;
  std::int64_t length = 0;
  std::int64_t capacity = 0;  ///< tokens that it keeps, where it forgets the oldest

  /// For states of fixed size: tensor i, or an undefined one (zeros) before the first token.
  Tensor carried(std::size_t i) const { return length > 0 ? tensors[i] : Tensor{}; }
  /// The state after `tokens` more; gradients end here.
  void carry(std::vector<Tensor> next, std::int64_t tokens) {
    for (Tensor& tensor : next) tensor = tensor.detached();
    tensors = std::move(next);
    length += tokens;
  }
};

/// What a mixer may see. The mesh axes that it goes over stand in the registry.
struct MixerTraits {
  bool causal = true;
  bool unbounded = false;  ///< the state has one size however many tokens it has seen
};

/// x: the residual stream, [B, T, d_model], or where the tp ranks share its rows out (OpContext::stream) those of this rank,
/// which the column-parallel layers gather. Positions of the local tokens stand in the operation context's token map.
struct MixerInput {
  const Tensor& x;
};

class Mixer {
 public:
  virtual ~Mixer() = default;
  virtual MixerTraits traits() const = 0;
  /// → the stream, as x. With a state, the input continues what the state has seen, and the state moves on.
  virtual Tensor forward(OpContext& cx, const MixerInput& input, MixerState* state) const = 0;
  /// An empty state for `batch` sequences of at most `capacity` tokens.
  virtual MixerState make_state(Allocator& memory, std::int64_t batch, std::int64_t capacity, DType dtype) const = 0;
};

}  // namespace weft
