// How far back trained mixers remember: associative recall (after Ba et al. 2016 and Arora et al. 2023). A sequence says once
// for each key which value it has, in one token, anywhere in its first half; noise and questions for a key follow, and a question
// is answered by the key's value. Loss and accuracy are those of the answers alone.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/data/sampler.hpp"
#include "launcher/plot.hpp"
#include "launcher/session.hpp"

namespace weft {

/// How a measurement talks to whoever waits for it.
struct LensHooks {
  /// Measurements done, measurements in all, and what comes next; on rank 0 alone.
  std::function<void(std::size_t, std::size_t, const std::string&)> progress;
  /// Asked on each rank after each pass: one that says yes stops all.
  std::function<bool()> stop = [] { return false; };
};

/// Tokens 0 … values − 1 are the values (answers alone), then one for each key with each value, for each question, and noise.
struct RecallTask {
  std::int64_t seq = 256;
  std::int64_t keys = 8, values = 8, noise = 8;

  std::int64_t vocab() const { return values + keys * values + keys + noise; }
  std::int32_t saying(std::int64_t key, std::int64_t value) const {
    return static_cast<std::int32_t>(values + key * values + value);
  }
  std::int32_t question(std::int64_t key) const { return static_cast<std::int32_t>(values + keys * values + key); }
  /// Sequences [first, first + count), each a pure function of (seed, its index): targets are −1 and weights 0 but at questions.
  /// `distances`, if given, gets the tokens since the key was said, by position, 0 where there is no question.
  Batch batch(std::uint64_t seed, std::int64_t first, std::int64_t count,
              std::vector<std::int64_t>* distances = nullptr) const;
};

struct RecallSpec {
  std::vector<std::string> models;  ///< mixers of the registry
  std::int64_t steps = 0;
  DType compute = DType::f32;
  std::uint64_t seed = 1;
};

struct RecallCurve {
  std::string model;
  std::int64_t parameters = 0;
  std::vector<PlotPoint>
      accuracy;     ///< part of answers that are right over tokens since the key was said, by powers of two
  double mean = 0;  ///< over all answers
};

/// The part of right answers that guessing gives.
double recall_by_chance();

/// Trains a small model of each mixer, all on the same sequences by the same recipe, and asks it for sequences that it has not
/// seen. Collective over the worker's world, whose ranks take different models; whole on every rank, nothing where a rank wants
/// to stop.
std::optional<std::vector<RecallCurve>> measure_recall(const Worker& worker, const RecallSpec& spec,
                                                       const LensHooks& hooks);

}  // namespace weft
