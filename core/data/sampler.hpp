// The global order of training windows: sample i is a pure function of (data, options, i), whatever the batch, the
// ranks or the history. The next sample's index is all that a checkpoint needs to keep.
#pragma once
#include <cstdint>
#include <span>
#include <vector>

#include "core/base/range.hpp"
#include "core/data/token_source.hpp"

namespace weft {

/// shuffled: each epoch visits every non-overlapping window once, in an order of its own. streams: `lanes` continuous
/// streams for models that carry state; sample i is lane i mod lanes, each lane's windows follow one another.
enum class SampleOrder : std::uint8_t { shuffled, streams };

/// Where an epoch's windows begin (shuffled order): always at 0, or at an offset below seq drawn for each epoch and
/// file.
enum class WindowOffset : std::uint8_t { zero, per_epoch };

struct SamplerOptions {
  std::int64_t seq = 0;
  std::uint64_t seed = 0;
  SampleOrder order = SampleOrder::shuffled;
  WindowOffset offset = WindowOffset::per_epoch;
  std::int64_t lanes = 0;  ///< streams order: the global batch
};

/// One window: inputs are tokens [begin, begin + seq) of the source, targets one further.
struct Sample {
  std::int64_t epoch = 0;
  std::int64_t source = 0;
  std::int64_t begin = 0;
  bool fresh = true;  ///< does not continue the lane's previous window: state starts anew
};

/// Samples [first, first + count), row-major. Refilled without allocating once it has grown.
struct Batch {
  std::int64_t first = 0;
  std::int64_t count = 0;
  std::int64_t seq = 0;
  std::vector<std::int32_t> tokens;   ///< [count, seq]
  std::vector<std::int32_t> targets;  ///< [count, seq]; -1 where the weight is 0
  std::vector<float> weights;         ///< [count, seq]
  std::vector<std::uint8_t> fresh;    ///< [count]; Sample::fresh
};

/// Keeps of each sequence the tokens in `intervals`, in their order: a rank's part where sequences lie over ranks.
void keep_tokens(Batch& batch, std::span<const Range> intervals);

class Sampler {
 public:
  /// Throws UserError when the data is too short: no file with seq + 1 tokens, or fewer windows than lanes.
  Sampler(TokenSources sources, const SamplerOptions& options);

  Sample sample(std::int64_t index) const;
  /// Fills `batch` with samples [first, first + count). Throws UserError on a token outside the vocabulary.
  void fill(std::int64_t first, std::int64_t count, Batch& batch) const;
  /// Samples in an epoch.
  std::int64_t epoch_samples() const;
  const SamplerOptions& options() const { return options_; }

 private:
  struct Extent {
    std::int64_t first = 0;  ///< index of its first window
    std::int64_t windows = 0;
    std::int64_t offsets = 1;  ///< window offsets to draw from
  };
  std::int64_t source_of(std::int64_t window) const;

  TokenSources sources_;
  SamplerOptions options_;
  std::vector<Extent> extents_;
  std::int64_t windows_ = 0;
};

/// Validation: every target of every stream exactly once, in windows of seq; a stream's last window is padded with
/// weight 0 and target -1.
class EvalWindows {
 public:
  /// Throws UserError when no stream has two tokens.
  EvalWindows(TokenSources sources, std::int64_t seq);

  std::int64_t count() const { return count_; }
  std::int64_t seq() const { return seq_; }
  std::int64_t targets() const { return targets_; }
  /// Bytes of text that the targets stand for; 0 when a source does not know.
  double target_bytes() const { return target_bytes_; }
  /// Windows [first, first + count); those from count() on are all padding, so that ranks can take equal shares.
  void fill(std::int64_t first, std::int64_t count, Batch& batch) const;

 private:
  TokenSources sources_;
  std::int64_t seq_;
  std::vector<std::int64_t> first_;  ///< index of each source's first window
  std::int64_t count_ = 0;
  std::int64_t targets_ = 0;
  double target_bytes_ = 0;
};

}  // namespace weft
