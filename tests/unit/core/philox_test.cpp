#include "core/base/philox.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <set>

namespace weft {
namespace {

// Known-answer vectors that the authors publish with Random123 (kat_vectors, philox4x32 10 rounds).
TEST(Philox, MatchesThePublishedVectors) {
  EXPECT_EQ(philox({0, 0}, {0, 0, 0, 0}), (PhiloxBlock{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}));
  EXPECT_EQ(philox({0xffffffff, 0xffffffff}, {0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff}),
            (PhiloxBlock{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}));
  EXPECT_EQ(philox({0xa4093822, 0x299f31d0}, {0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344}),
            (PhiloxBlock{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}));
}

TEST(Philox, UsesAllSixtyFourIndexBits) {
  const PhiloxKey key = philox_key(7);
  EXPECT_NE(philox_word(key, 5), philox_word(key, 5 + (std::uint64_t{1} << 34)));
}

TEST(Philox, KeysOfDifferentStreamsDiffer) {
  std::set<PhiloxKey> keys;
  for (std::uint64_t seed = 0; seed < 8; ++seed)
    for (std::uint64_t step = 0; step < 8; ++step)
      for (std::uint64_t layer = 0; layer < 8; ++layer) keys.insert(philox_key(seed, step, layer));
  EXPECT_EQ(keys.size(), 512u);
  EXPECT_NE(philox_key(1, "a.weight"), philox_key(1, "b.weight"));
  EXPECT_NE(philox_key(1, "a.weight"), philox_key(2, "a.weight"));
}

TEST(Philox, UniformStaysBelowOneAndHasTheRightMean) {
  EXPECT_LT(uniform(0xffffffffu), 1.0f);
  EXPECT_EQ(uniform(0), 0.0f);
  double sum = 0;
  for (std::uint64_t i = 0; i < 100000; ++i) sum += uniform(philox_word({3, 4}, i));
  EXPECT_NEAR(sum / 100000, 0.5, 0.004);
}

TEST(Philox, NormalHasUnitVarianceAndNoTailLoss) {
  double sum = 0, squares = 0, largest = 0;
  constexpr int count = 200000;
  for (std::uint64_t i = 0; i < count; ++i) {
    const double x = normal({1, 2}, i);
    ASSERT_TRUE(std::isfinite(x));
    sum += x;
    squares += x * x;
    largest = std::max(largest, std::abs(x));
  }
  EXPECT_NEAR(sum / count, 0, 0.01);
  EXPECT_NEAR(squares / count, 1, 0.02);
  EXPECT_GT(largest, 4.0);
}

}  // namespace
}  // namespace weft
