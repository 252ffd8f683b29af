// Text from a model, one token at a time through the key-value cache.
#pragma once
#include <cstdint>
#include <functional>
#include <vector>

#include "launcher/session.hpp"
#include "models/language_model.hpp"

namespace weft {

struct SamplingOptions {
  std::int64_t tokens = 500;
  double temperature = 1;  ///< 0: always the likeliest token
  std::int64_t top_k = 0;  ///< 0: all
  double top_p = 1;        ///< least set of likeliest tokens with this probability (Holtzman et al. 2020)
  std::uint64_t seed = 1;
  DType compute = DType::f32;
};

/// Continues `prompt` (at least one token), calling `emit` for each new token; token i depends on (seed, i) and the text
/// before it alone. When the model's window is full, the latter half of the text is read anew and sampling goes on; a
/// recurrence has no window.
/// Stops early when `emit` returns false. Collective over `group`, the model's tp ranks: all get the same tokens, rank 0
/// alone calls `emit`.
void sample_tokens(Engine& engine, Communicator& group, const LanguageModel& model, std::vector<std::int32_t> prompt,
                   const SamplingOptions& options, const std::function<bool(std::int32_t)>& emit);

/// The choice itself: one token of `logits` for a uniform number in [0, 1).
std::int32_t choose_token(std::vector<float> logits, const SamplingOptions& options, double uniform);

}  // namespace weft
