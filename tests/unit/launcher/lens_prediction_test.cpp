// The lens's predictions against small cases worked out by hand.
#include "launcher/lens/prediction.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace weft {
namespace {

struct Fit {
  const char* name;
  std::vector<MeasuredPass> passes;
  PassSpeed expected;
};

class FitSpeed : public testing::TestWithParam<Fit> {};

TEST_P(FitSpeed, TellsWorkFromLevels) {
  const PassSpeed speed = fit_speed(GetParam().passes);
  EXPECT_NEAR(speed.seconds_per_flop, GetParam().expected.seconds_per_flop, 1e-12);
  EXPECT_NEAR(speed.seconds_per_level, GetParam().expected.seconds_per_level, 1e-12);
}

INSTANTIATE_TEST_SUITE_P(
    Table, FitSpeed,
    testing::Values(
        // 100 a + 10 l = 3 and 800 a + 10 l = 10: a = 0.01, l = 0.2.
        Fit{"BothOfTwoBatches", {{100, 10, 3}, {800, 10, 10}}, {0.01, 0.2}},
        Fit{"BothOfThreeBatches", {{100, 10, 3}, {800, 10, 10}, {200, 10, 4}}, {0.01, 0.2}},
        // Eight times the work in the same time: all of it is waiting.
        Fit{"LevelsAlone", {{100, 10, 3}, {800, 10, 3}}, {0, 0.3}},
        // Nine times as long for eight times the work: a level that took less than nothing counts as nothing, and a·w is then
        // nearest to 1 for w = 100 and w = 800/9: (100 + 800/9) / (100² + (800/9)²).
        Fit{"WorkAlone", {{100, 10, 1}, {800, 10, 9}}, {(100 + 800.0 / 9) / (1e4 + 640000.0 / 81), 0}},
        Fit{"OnePassIsAllWork", {{100, 10, 2}}, {0.02, 0}},
        Fit{"SameRatioIsAllWork", {{100, 10, 2}, {200, 20, 4}}, {0.02, 0}}, Fit{"Nothing", {}, {0, 0}},
        Fit{"NoWork", {{0, 10, 5}}, {0, 0.5}}),
    [](const auto& row) { return row.param.name; });

TEST(PredictedSeconds, AddsWorkLevelsStartsAndBytes) {
  // Half the work over two ranks, the same levels: 50·0.01 + 10·0.2 = 2.5; 3 starts of 0.1 and 40 bytes of 0.005: 0.5.
  EXPECT_DOUBLE_EQ(predicted_seconds({0.01, 0.2}, {0.1, 0.005}, {50, 10, 3, 40}), 3.0);
  EXPECT_DOUBLE_EQ(predicted_seconds({0.01, 0.2}, {}, {100, 10, 0, 0}), 3.0);
}

TEST(PredictedSeconds, WaitsForTheRanksBeforeInARelay) {
  // 60·0.01 + 32·0.2 = 7, of which 20 levels are waiting; a second part's levels 10·0.2 = 2; two ranks before work a turn of
  // 20·0.01 = 0.2 each.
  const RankLoad load{60, 32, 0, 0, {.parts = 2, .work = 40, .span = 10}, 3};
  EXPECT_DOUBLE_EQ(predicted_seconds({0.01, 0.2}, {}, load), 7 + 2 + 2 * 0.2);
}

struct RelayGain {
  double ranks, parts;
};

class PipelinedRelay : public testing::TestWithParam<RelayGain> {};

TEST_P(PipelinedRelay, GainsRanksTimesPartsOverTurns) {
  const auto [ranks, parts] = GetParam();
  const PassSpeed speed{0.01, 0};
  const double one = predicted_seconds(speed, {}, {.work = 600});
  const double all = predicted_seconds(
      speed, {}, {.work = 600 / ranks, .relay = {.parts = parts, .work = 600 / ranks}, .ranks = ranks});
  EXPECT_NEAR(one / all, ranks * parts / (parts + ranks - 1), 1e-12);
}

INSTANTIATE_TEST_SUITE_P(Table, PipelinedRelay,
                         testing::Values(RelayGain{1, 1}, RelayGain{2, 1}, RelayGain{2, 4}, RelayGain{4, 12}));

}  // namespace
}  // namespace weft
