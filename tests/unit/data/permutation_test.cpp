#include "core/data/permutation.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

namespace weft {
namespace {

std::vector<std::uint64_t> images(std::uint64_t size, PhiloxKey key) {
  const Permutation permutation(size, key);
  std::vector<std::uint64_t> found(size);
  for (std::uint64_t i = 0; i < size; ++i) found[i] = permutation(i);
  return found;
}

TEST(Permutation, IsABijectionAtEverySize) {
  for (const std::uint64_t size : {1u, 2u, 3u, 4u, 5u, 7u, 16u, 17u, 63u, 64u, 65u, 1000u, 4096u, 4097u, 65537u}) {
    const auto found = images(size, philox_key(3, size));
    std::vector<bool> seen(size, false);
    for (const std::uint64_t image : found) {
      ASSERT_LT(image, size);
      ASSERT_FALSE(seen[image]) << "size " << size << ", image " << image << " twice";
      seen[image] = true;
    }
  }
}

TEST(Permutation, DiffersBetweenKeysAndFromTheIdentity) {
  const auto a = images(1000, philox_key(1, 0)), b = images(1000, philox_key(1, 1));
  int same = 0, fixed = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    same += a[i] == b[i];
    fixed += a[i] == i;
  }
  EXPECT_LT(same, 10);
  EXPECT_LT(fixed, 10);
}

TEST(Permutation, SmallSizesReachEveryOrderAboutEquallyOften) {
  std::vector<int> counts(24, 0);
  constexpr int draws = 24'000;
  for (std::uint64_t key = 0; key < draws; ++key) {
    const auto p = images(4, philox_key(11, key));
    std::vector<std::uint64_t> left = {0, 1, 2, 3};
    std::size_t rank = 0;
    for (std::size_t i = 0; i < 4; ++i) {
      const auto at = std::find(left.begin(), left.end(), p[i]);
      rank = rank * (4 - i) + static_cast<std::size_t>(at - left.begin());
      left.erase(at);
    }
    ++counts[rank];
  }
  // A Feistel network of an even domain reaches the even permutations alone (12 of 24 at size 4 is allowed), but must
  // not favour any; 5 sigma of a binomial with p = 1/12 or 1/24.
  int reached = 0;
  for (const int count : counts) {
    if (count == 0) continue;
    ++reached;
    EXPECT_GT(count, 1000 - 5 * 31);
    EXPECT_LT(count, 2000 + 5 * 43);
  }
  EXPECT_GE(reached, 12);
}

TEST(Permutation, NeighboursLandFarApart) {
  const std::uint64_t size = 10'000;
  const auto found = images(size, philox_key(5, 0));
  double distance = 0;
  for (std::size_t i = 1; i < size; ++i)
    distance += std::abs(static_cast<double>(found[i]) - static_cast<double>(found[i - 1]));
  distance /= static_cast<double>(size - 1) * static_cast<double>(size);
  EXPECT_NEAR(distance, 1.0 / 3.0, 0.01) << "the mean distance of two uniform draws is a third of the range";
}

TEST(Permutation, HugeRangesStayInRangeAndInjective) {
  const std::uint64_t size = (std::uint64_t{1} << 40) + 12345;
  const Permutation permutation(size, philox_key(1, 2));
  std::vector<std::uint64_t> found;
  for (std::uint64_t i = 0; i < 2000; ++i) found.push_back(permutation(size - 1 - i * 1000));
  std::sort(found.begin(), found.end());
  EXPECT_EQ(std::adjacent_find(found.begin(), found.end()), found.end());
  EXPECT_LT(found.back(), size);
  EXPECT_GT(found.back(), size / 2);
}

}  // namespace
}  // namespace weft
