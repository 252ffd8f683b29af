#include "core/optim/schedule.hpp"

#include <gtest/gtest.h>

#include "core/base/error.hpp"

namespace weft {
namespace {

TEST(Schedule, WarmsUpFromTheFirstStepToThePeak) {
  const Schedule schedule{Schedule::Kind::cosine, 1.0, 0.1, 10, 110};
  EXPECT_DOUBLE_EQ(schedule.rate(1), 0.1);
  EXPECT_DOUBLE_EQ(schedule.rate(5), 0.5);
  EXPECT_DOUBLE_EQ(schedule.rate(10), 1.0);
}

TEST(Schedule, EndsAtTheFloorAndStaysThere) {
  for (const auto kind : {Schedule::Kind::cosine, Schedule::Kind::linear}) {
    const Schedule schedule{kind, 1.0, 0.1, 10, 110};
    EXPECT_NEAR(schedule.rate(60), 0.55, 1e-12);
    EXPECT_NEAR(schedule.rate(110), 0.1, 1e-12);
    EXPECT_NEAR(schedule.rate(500), 0.1, 1e-12);
  }
  EXPECT_DOUBLE_EQ((Schedule{Schedule::Kind::constant, 1.0, 0.1, 10, 110}).rate(110), 1.0);
}

TEST(Schedule, NeverRisesAfterWarmUp) {
  const Schedule schedule{Schedule::Kind::cosine, 3e-4, 3e-5, 7, 93};
  for (std::int64_t step = 8; step < 100; ++step) EXPECT_LE(schedule.rate(step + 1), schedule.rate(step));
}

TEST(Schedule, WorksWithoutWarmUpAndInOneStep) {
  EXPECT_GT((Schedule{Schedule::Kind::cosine, 1.0, 0.0, 0, 10}).rate(1), 0.9);
  EXPECT_DOUBLE_EQ((Schedule{Schedule::Kind::linear, 1.0, 0.0, 1, 1}).rate(1), 1.0);
}

}  // namespace
}  // namespace weft
