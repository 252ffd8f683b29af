#include "core/data/sampler.hpp"

#include <gtest/gtest.h>

#include <map>
#include <set>
#include <tuple>

#include "core/base/error.hpp"
#include "tests/unit/io/temp_folder.hpp"

namespace weft {
namespace {

// A stream whose token says where it stands, so that a batch can be checked without the source.
class Counting final : public TokenSource {
 public:
  explicit Counting(std::int64_t size, std::int32_t start = 0) : size_(size), start_(start) {}
  const std::string& name() const override { return name_; }
  std::int64_t size() const override { return size_; }
  std::int64_t vocab_size() const override { return 1 << 30; }
  std::int64_t text_bytes() const override { return 3 * size_; }
  void read(std::int64_t begin, std::span<std::int32_t> out) const override {
    ASSERT_LE(begin + static_cast<std::int64_t>(out.size()), size_);
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] = start_ + static_cast<std::int32_t>(begin + static_cast<std::int64_t>(i));
  }

 private:
  std::string name_ = "counting";
  std::int64_t size_;
  std::int32_t start_;
};

TokenSources streams(std::initializer_list<std::int64_t> sizes) {
  TokenSources sources;
  std::int32_t start = 0;
  for (const std::int64_t size : sizes) {
    sources.push_back(std::make_shared<Counting>(size, start));
    start += 1'000'000;
  }
  return sources;
}

auto key(const Sample& sample) { return std::tuple(sample.epoch, sample.source, sample.begin, sample.fresh); }

TEST(Sampler, AnEpochVisitsEveryWindowOnceAndNeverCrossesAFile) {
  const std::vector<std::int64_t> sizes = {1003, 5, 64, 17, 16};  // seq 16: 62, 0, 3, 1, 0 windows
  const Sampler sampler(streams({1003, 5, 64, 17, 16}), {.seq = 16, .seed = 9, .offset = WindowOffset::zero});
  EXPECT_EQ(sampler.epoch_samples(), 62 + 3 + 1);
  for (std::int64_t epoch = 0; epoch < 3; ++epoch) {
    std::set<std::pair<std::int64_t, std::int64_t>> seen;
    for (std::int64_t i = 0; i < sampler.epoch_samples(); ++i) {
      const Sample sample = sampler.sample(epoch * sampler.epoch_samples() + i);
      EXPECT_EQ(sample.epoch, epoch);
      EXPECT_EQ(sample.begin % 16, 0);
      EXPECT_LE(sample.begin + 17, sizes[static_cast<std::size_t>(sample.source)]);
      EXPECT_TRUE(seen.emplace(sample.source, sample.begin).second) << "a window twice in one epoch";
    }
  }
}

TEST(Sampler, OffsetsMoveWindowsBetweenEpochsWithoutOverlap) {
  const Sampler sampler(streams({1003}), {.seq = 16, .seed = 9});
  std::set<std::int64_t> offsets;
  for (std::int64_t epoch = 0; epoch < 200; ++epoch) {
    std::set<std::int64_t> begins;
    for (std::int64_t i = 0; i < sampler.epoch_samples(); ++i)
      begins.insert(sampler.sample(epoch * sampler.epoch_samples() + i).begin);
    ASSERT_EQ(static_cast<std::int64_t>(begins.size()), sampler.epoch_samples());
    const std::int64_t offset = *begins.begin();
    offsets.insert(offset);
    for (const std::int64_t begin : begins) EXPECT_EQ(begin % 16, offset);
    EXPECT_LE(*begins.rbegin() + 17, 1003);
  }
  EXPECT_EQ(offsets.size(), 16u) << "each offset below seq is drawn";
}

TEST(Sampler, TheOrderDependsOnTheSeedAndTheEpochAlone) {
  const SamplerOptions options = {.seq = 8, .seed = 1};
  const Sampler a(streams({500, 300}), options), b(streams({500, 300}), options);
  SamplerOptions other = options;
  other.seed = 2;
  const Sampler c(streams({500, 300}), other);
  int same_seed = 0, same_epoch = 0;
  for (std::int64_t i = a.epoch_samples() - 1; i >= 0; --i) {
    EXPECT_EQ(key(a.sample(i)), key(b.sample(i)));
    same_seed += key(a.sample(i)) == key(c.sample(i));
    same_epoch += a.sample(i).begin == a.sample(i + a.epoch_samples()).begin;
  }
  EXPECT_LT(same_seed, 10);
  EXPECT_LT(same_epoch, 20);
}

TEST(Sampler, ABatchIsTheSameWhateverItsSizeAndHasTheNextTokenAsTarget) {
  for (const SampleOrder order : {SampleOrder::shuffled, SampleOrder::streams}) {
    const Sampler sampler(streams({777, 4, 300}), {.seq = 12, .seed = 4, .order = order, .lanes = 6});
    Batch all, part;
    sampler.fill(0, 240, all);
    for (const std::int64_t size : {1, 7, 16, 60}) {
      for (std::int64_t first = 0; first + size <= 240; first += size) {
        sampler.fill(first, size, part);
        for (std::int64_t i = 0; i < size * 12; ++i) {
          const auto at = static_cast<std::size_t>(i), in_all = static_cast<std::size_t>(first * 12 + i);
          ASSERT_EQ(part.tokens[at], all.tokens[in_all]);
          ASSERT_EQ(part.targets[at], all.tokens[in_all] + 1);
          ASSERT_EQ(part.weights[at], 1.0f);
        }
      }
    }
    EXPECT_EQ(part.count, 60);
    EXPECT_EQ(part.seq, 12);
  }
}

TEST(Sampler, LanesFollowTheirStreamUntilTheEpochOrTheFileEnds) {
  constexpr std::int64_t lanes = 4, seq = 10;
  const Sampler sampler(streams({401, 95}), {.seq = seq, .order = SampleOrder::streams, .lanes = lanes});
  const std::int64_t steps = sampler.epoch_samples() / lanes;
  EXPECT_EQ(steps, (40 + 9) / 4);
  std::set<std::pair<std::int64_t, std::int64_t>> seen;
  for (std::int64_t lane = 0; lane < lanes; ++lane) {
    for (std::int64_t step = 0; step < 2 * steps; ++step) {
      const Sample now = sampler.sample(step * lanes + lane);
      if (step < steps) {
        EXPECT_TRUE(seen.emplace(now.source, now.begin).second);
      }
      if (step % steps == 0) {
        EXPECT_TRUE(now.fresh);
        continue;
      }
      const Sample before = sampler.sample((step - 1) * lanes + lane);
      const bool continues = now.source == before.source && now.begin == before.begin + seq;
      EXPECT_EQ(now.fresh, !continues) << "lane " << lane << ", step " << step;
      if (now.fresh) {
        EXPECT_EQ(now.begin, 0);
      }
    }
  }
  EXPECT_EQ(static_cast<std::int64_t>(seen.size()), steps * lanes);
}

TEST(Sampler, DataThatIsTooShortIsRefusedWithItsNameAndSize) {
  const std::string message = test::user_error([] { Sampler(streams({16, 9}), {.seq = 16}); });
  for (const char* part : {"counting", "16", "17", "--seq"})
    EXPECT_NE(message.find(part), std::string::npos) << message;
  EXPECT_EQ(Sampler(streams({17}), {.seq = 16}).epoch_samples(), 1);
  const std::string lanes =
      test::user_error([] { Sampler(streams({33}), {.seq = 16, .order = SampleOrder::streams, .lanes = 3}); });
  EXPECT_NE(lanes.find("batch of 3"), std::string::npos) << lanes;
}

TEST(EvalWindows, EveryTargetCountsExactlyOnceWhateverTheWindowAndTheBatch) {
  for (const std::int64_t seq : {1, 5, 16, 100}) {
    const EvalWindows windows(streams({101, 1, 2, 0, 33}), seq);
    EXPECT_EQ(windows.targets(), 100 + 0 + 1 + 0 + 32);
    EXPECT_NEAR(windows.target_bytes(), 3.0 * 133, 1e-9);
    for (const std::int64_t size : {1, 4, 50}) {
      std::map<std::int32_t, int> counted;
      double weight = 0;
      Batch batch;
      for (std::int64_t first = 0; first < windows.count(); first += size) {
        windows.fill(first, size, batch);
        for (std::size_t i = 0; i < batch.tokens.size(); ++i) {
          weight += batch.weights[i];
          if (batch.weights[i] == 0.0f) {
            EXPECT_EQ(batch.targets[i], -1);
            continue;
          }
          EXPECT_EQ(batch.targets[i], batch.tokens[i] + 1);
          ++counted[batch.targets[i]];
        }
      }
      EXPECT_EQ(weight, 133.0);
      EXPECT_EQ(counted.size(), 133u);
      for (const auto& [target, times] : counted) EXPECT_EQ(times, 1) << target;
    }
  }
}

TEST(KeepTokens, LeavesEachSequencesIntervalsInTheirOrder) {
  Batch batch;
  batch.count = 2;
  batch.seq = 5;
  batch.tokens = {0, 1, 2, 3, 4, 10, 11, 12, 13, 14};
  batch.targets = {1, 2, 3, 4, 5, 11, 12, 13, 14, 15};
  batch.weights = {0, 1, 2, 3, 4, 10, 11, 12, 13, 14};
  const std::vector<Range> all = {{0, 5}}, parts = {{1, 2}, {3, 5}};
  keep_tokens(batch, all);
  EXPECT_EQ(batch.seq, 5);
  keep_tokens(batch, parts);
  EXPECT_EQ(batch.seq, 3);
  EXPECT_EQ(batch.tokens, (std::vector<std::int32_t>{1, 3, 4, 11, 13, 14}));
  EXPECT_EQ(batch.targets, (std::vector<std::int32_t>{2, 4, 5, 12, 14, 15}));
  EXPECT_EQ(batch.weights, (std::vector<float>{1, 3, 4, 11, 13, 14}));
}

TEST(EvalWindows, RefusesDataWithoutATarget) {
  EXPECT_NE(test::user_error([] { EvalWindows(streams({1, 0}), 8); }).find("at least 2 tokens"), std::string::npos);
}

}  // namespace
}  // namespace weft
