#include "core/data/sampler.hpp"

#include <algorithm>

#include "core/base/error.hpp"
#include "core/data/permutation.hpp"

namespace weft {
namespace {

// What a key is for: different uses of one seed must not draw the same words.
enum class Stream : std::uint64_t { order = 0x6f72646572, offset = 0x6f66667365 };

PhiloxKey key_for(std::uint64_t seed, Stream stream, std::int64_t epoch) {
  return philox_key(seed, static_cast<std::uint64_t>(stream), static_cast<std::uint64_t>(epoch));
}

void shape_batch(Batch& batch, std::int64_t first, std::int64_t count, std::int64_t seq) {
  WEFT_CHECK(first >= 0 && count >= 0, "samples [{}, {})", first, first + count);
  const auto elements = static_cast<std::size_t>(count * seq);
  batch.first = first;
  batch.count = count;
  batch.seq = seq;
  batch.tokens.resize(elements);
  batch.targets.resize(elements);
  batch.weights.assign(elements, 1.0f);
  batch.fresh.assign(static_cast<std::size_t>(count), 1);
}

}  // namespace

void keep_tokens(Batch& batch, std::span<const Range> intervals) {
  std::int64_t kept = 0;
  for (const Range& interval : intervals) {
    WEFT_CHECK(0 <= interval.begin && interval.begin <= interval.end && interval.end <= batch.seq,
               "tokens [{}, {}) of {}", interval.begin, interval.end, batch.seq);
    kept += interval.size();
  }
  if (kept == batch.seq && intervals.size() == 1) return;
  // A copy of one sequence, since intervals may be moved past each other.
  const auto keep = [&](auto& values) {
    std::remove_reference_t<decltype(values)> sequence(static_cast<std::size_t>(kept));
    for (std::int64_t row = 0; row < batch.count; ++row) {
      auto to = sequence.begin();
      for (const Range& interval : intervals)
        to = std::copy_n(values.begin() + row * batch.seq + interval.begin, interval.size(), to);
      std::copy(sequence.begin(), sequence.end(), values.begin() + row * kept);
    }
    values.resize(static_cast<std::size_t>(batch.count * kept));
  };
  keep(batch.tokens);
  keep(batch.targets);
  keep(batch.weights);
  batch.seq = kept;
}

Sampler::Sampler(TokenSources sources, const SamplerOptions& options)
    : sources_(std::move(sources)), options_(options) {
  WEFT_CHECK(options_.seq > 0 && !sources_.empty());
  const bool streams = options_.order == SampleOrder::streams;
  WEFT_CHECK(!streams || options_.lanes > 0, "streams need the number of lanes");
  std::int64_t longest = 0;
  for (const TokenSourcePtr& source : sources_) {
    longest = std::max(longest, source->size());
    Extent extent;
    extent.first = windows_;
    extent.windows = std::max<std::int64_t>(source->size() - 1, 0) / options_.seq;
    if (!streams && options_.offset == WindowOffset::per_epoch && extent.windows > 0) {
      // One window less makes room for every offset; the count must not depend on the offset, or epochs would differ.
      if (extent.windows > 1) --extent.windows;
      extent.offsets = std::min(options_.seq, source->size() - extent.windows * options_.seq);
    }
    windows_ += extent.windows;
    extents_.push_back(extent);
  }
  if (windows_ == 0)
    fail_user("data '{}' is too short: {} tokens where a window of --seq {} needs {}", sources_[0]->name(), longest,
              options_.seq, options_.seq + 1);
  if (streams && windows_ < options_.lanes)
    fail_user("data '{}' is too short: {} windows of --seq {} for a batch of {} streams", sources_[0]->name(), windows_,
              options_.seq, options_.lanes);
}

std::int64_t Sampler::epoch_samples() const {
  return options_.order == SampleOrder::shuffled ? windows_ : windows_ / options_.lanes * options_.lanes;
}

std::int64_t Sampler::source_of(std::int64_t window) const {
  const auto after = std::upper_bound(extents_.begin(), extents_.end(), window,
                                      [](std::int64_t w, const Extent& extent) { return w < extent.first; });
  return after - extents_.begin() - 1;
}

Sample Sampler::sample(std::int64_t index) const {
  WEFT_CHECK(index >= 0);
  Sample sample;
  sample.epoch = index / epoch_samples();
  const std::int64_t place = index % epoch_samples();
  if (options_.order == SampleOrder::shuffled) {
    const Permutation order(static_cast<std::uint64_t>(windows_), key_for(options_.seed, Stream::order, sample.epoch));
    const auto window = static_cast<std::int64_t>(order(static_cast<std::uint64_t>(place)));
    sample.source = source_of(window);
    const Extent& extent = extents_[static_cast<std::size_t>(sample.source)];
    const PhiloxKey key = key_for(options_.seed, Stream::offset, sample.epoch);
    const std::uint64_t draw = philox_block(key, static_cast<std::uint64_t>(sample.source))[0];
    const auto offset = static_cast<std::int64_t>((draw * static_cast<std::uint64_t>(extent.offsets)) >> 32);
    sample.begin = offset + (window - extent.first) * options_.seq;
    return sample;
  }
  const std::int64_t steps = epoch_samples() / options_.lanes;
  const std::int64_t step = place / options_.lanes;
  const std::int64_t window = place % options_.lanes * steps + step;
  sample.source = source_of(window);
  sample.begin = (window - extents_[static_cast<std::size_t>(sample.source)].first) * options_.seq;
  sample.fresh = step == 0 || sample.begin == 0;
  return sample;
}

void Sampler::fill(std::int64_t first, std::int64_t count, Batch& batch) const {
  const std::int64_t seq = options_.seq;
  shape_batch(batch, first, count, seq);
  for (std::int64_t row = 0; row < count; ++row) {
    const Sample where = sample(first + row);
    const TokenSource& source = *sources_[static_cast<std::size_t>(where.source)];
    const std::span tokens(batch.tokens.data() + row * seq, static_cast<std::size_t>(seq));
    const std::span targets(batch.targets.data() + row * seq, static_cast<std::size_t>(seq));
    source.read(where.begin, tokens);
    std::copy(tokens.begin() + 1, tokens.end(), targets.begin());
    source.read(where.begin + seq, targets.last(1));
    batch.fresh[static_cast<std::size_t>(row)] = where.fresh ? 1 : 0;
  }
}

EvalWindows::EvalWindows(TokenSources sources, std::int64_t seq) : sources_(std::move(sources)), seq_(seq) {
  WEFT_CHECK(seq > 0 && !sources_.empty());
  bool all_known = true;
  for (const TokenSourcePtr& source : sources_) {
    first_.push_back(count_);
    const std::int64_t targets = std::max<std::int64_t>(source->size() - 1, 0);
    count_ += (targets + seq - 1) / seq;
    targets_ += targets;
    if (targets == 0) continue;
    all_known = all_known && source->text_bytes() > 0;
    target_bytes_ +=
        static_cast<double>(source->text_bytes()) * static_cast<double>(targets) / static_cast<double>(source->size());
  }
  if (!all_known) target_bytes_ = 0;
  if (targets_ == 0) fail_user("validation data '{}' is too short: it needs at least 2 tokens", sources_[0]->name());
}

void EvalWindows::fill(std::int64_t first, std::int64_t count, Batch& batch) const {
  shape_batch(batch, first, count, seq_);
  std::fill(batch.tokens.begin(), batch.tokens.end(), 0);
  std::fill(batch.targets.begin(), batch.targets.end(), -1);
  std::fill(batch.weights.begin(), batch.weights.end(), 0.0f);
  for (std::int64_t row = 0; row < count && first + row < count_; ++row) {
    const std::int64_t window = first + row;
    const std::int64_t which = std::upper_bound(first_.begin(), first_.end(), window) - first_.begin() - 1;
    const TokenSource& source = *sources_[static_cast<std::size_t>(which)];
    const std::int64_t begin = (window - first_[static_cast<std::size_t>(which)]) * seq_;
    const auto length = static_cast<std::size_t>(std::min(seq_, source.size() - 1 - begin));
    source.read(begin, std::span(batch.tokens.data() + row * seq_, length));
    source.read(begin + 1, std::span(batch.targets.data() + row * seq_, length));
    std::fill_n(batch.weights.begin() + row * seq_, length, 1.0f);
    batch.fresh[static_cast<std::size_t>(row)] = begin == 0 ? 1 : 0;
  }
}

}  // namespace weft
