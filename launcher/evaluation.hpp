// The loss of a model over a validation stream, every target counted once, shared out over the ranks.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>

#include "core/data/sampler.hpp"
#include "launcher/model_setup.hpp"
#include "launcher/session.hpp"

namespace weft {

struct EvaluationOptions {
  std::int64_t micro_batch = 0;  ///< sequences a rank takes at a time; 0: chosen
  std::int64_t max_targets = 0;  ///< 0: all
  DType compute = DType::f32;
  ShardingOptions sharding;  ///< as the model was built with
};

struct EvaluationResult {
  double loss = 0;  ///< nats a target
  std::int64_t targets = 0;
  std::optional<double> bits_per_byte;  ///< where the bytes are known
};

/// The windows that are evaluated: the first of `windows` that hold max_targets.
std::int64_t evaluated_windows(const EvalWindows& windows, const EvaluationOptions& options);
/// Sequences that each of `replicas` takes at a time of `windows`.
std::int64_t sequences_at_a_time(const EvaluationOptions& options, const EvalWindows& windows, int replicas);

/// Collective over all ranks of the mesh. `stop` is polled: when it is true on any rank, all give up and nothing is
/// returned. `progress` (may be empty) gets windows done and windows in all.
std::optional<EvaluationResult> evaluate(const Worker& worker, const LanguageModel& model, const EvalWindows& windows,
                                         const EvaluationOptions& options, const std::function<bool()>& stop,
                                         const std::function<void(std::int64_t, std::int64_t)>& progress = {});

}  // namespace weft
