// The bits of floating-point reductions: the same on all ranks, the same each time, bf16 sums rounded once.
#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "tests/distributed/mpi_test.hpp"

namespace weft::test {
namespace {

std::vector<float> noise(int rank, std::int64_t count) {
  std::vector<float> x(static_cast<std::size_t>(count));
  std::uint64_t state = 0x9e3779b97f4a7c15u * static_cast<std::uint64_t>(rank + 1);
  for (float& v : x) {
    state = state * 6364136223846793005u + 1442695040888963407u;
    // Magnitudes from 2^-16 to 2^15: the order of a sum shows in its bits.
    const int exponent = static_cast<int>(state >> 59) - 16;
    v = std::ldexp(static_cast<float>(static_cast<std::int32_t>(state >> 24)) * 0x1p-31f, exponent);
  }
  return x;
}

MutView mut(std::vector<float>& x) { return {x.data(), {static_cast<std::int64_t>(x.size())}, DType::f32}; }
MutView mut(std::vector<bf16>& x) { return {x.data(), {static_cast<std::int64_t>(x.size())}, DType::bf16}; }

template <class T>
bool same_bits(const std::vector<T>& a, const std::vector<T>& b) {
  return a.size() == b.size() && std::memcmp(a.data(), b.data(), a.size() * sizeof(T)) == 0;
}

template <class T>
void expect_same_bits_on_all_ranks(const std::vector<T>& x) {
  auto first = x;
  world().broadcast(mut(first), 0).wait();
  EXPECT_TRUE(same_bits(x, first)) << x.size() << " elements";
}

const std::int64_t counts[] = {1, 1000, 5003, 100003, 1500001};

TEST(Reduction, AllRanksHoldTheSameBitsEveryTime) {
  for (const auto count : counts) {
    const auto input = noise(world().rank(), count);
    auto once = input, again = input;
    world().all_reduce(mut(once)).wait();
    world().all_reduce(mut(again)).wait();
    EXPECT_TRUE(same_bits(once, again)) << count;
    expect_same_bits_on_all_ranks(once);
    std::vector<double> sum(input.size()), magnitude(input.size());
    for (int rank = 0; rank < world().size(); ++rank) {
      const auto x = noise(rank, count);
      for (std::size_t i = 0; i < x.size(); ++i) {
        sum[i] += x[i];
        magnitude[i] += std::abs(x[i]);
      }
    }
    for (std::size_t i = 0; i < sum.size(); ++i) ASSERT_NEAR(once[i], sum[i], 1e-6 * magnitude[i]) << i;
  }
}

TEST(Reduction, ReduceScatterThenAllGatherIsReproducible) {
  const std::int64_t part = 70001;
  const auto input = noise(world().rank(), part * world().size());
  std::vector<float> own(static_cast<std::size_t>(part)), again = own, all(input.size());
  world().reduce_scatter(View(input.data(), {part * world().size()}, DType::f32), mut(own)).wait();
  world().reduce_scatter(View(input.data(), {part * world().size()}, DType::f32), mut(again)).wait();
  EXPECT_TRUE(same_bits(own, again));
  world().all_gather(mut(own), mut(all)).wait();
  expect_same_bits_on_all_ranks(all);
}

/// Σ over ranks, in rank order, of contributions rounded to bf16.
std::vector<float> rounded_sum(std::int64_t count) {
  std::vector<float> sum(static_cast<std::size_t>(count), 0.0f);
  for (int rank = 0; rank < world().size(); ++rank) {
    const auto x = noise(rank, count);
    for (std::size_t i = 0; i < sum.size(); ++i) sum[i] += static_cast<float>(bf16(x[i]));
  }
  return sum;
}

TEST(Reduction, Bf16SumsAreRoundedOnce) {
  for (const std::int64_t count : {30000, 300001}) {
    const auto x = noise(world().rank(), count);
    std::vector<bf16> sum(x.size());
    for (std::size_t i = 0; i < x.size(); ++i) sum[i] = bf16(x[i]);
    world().all_reduce(mut(sum)).wait();
    const auto expected = rounded_sum(count);
    for (std::size_t i = 0; i < sum.size(); ++i) ASSERT_EQ(sum[i], bf16(expected[i])) << i;
  }
}

TEST(Reduction, Bf16WireRoundsContributionsAndResult) {
  for (const std::int64_t count : {30000, 300001}) {
    auto x = noise(world().rank(), count);
    world().all_reduce(mut(x), {.wire = Wire::bf16}).wait();
    const auto expected = rounded_sum(count);
    for (std::size_t i = 0; i < x.size(); ++i) ASSERT_EQ(x[i], static_cast<float>(bf16(expected[i]))) << i;
    expect_same_bits_on_all_ranks(x);
  }
  auto few = noise(world().rank(), 100);
  world().all_reduce(mut(few), {.wire = Wire::bf16}).wait();
  expect_same_bits_on_all_ranks(few);
  for (const float v : few) EXPECT_EQ(v, static_cast<float>(bf16(v)));
}

TEST(Reduction, Bf16WireKeepsAScatteredSumInF32) {
  const std::int64_t part = 90001;
  const auto x = noise(world().rank(), part * world().size());
  std::vector<float> own(static_cast<std::size_t>(part));
  world().reduce_scatter(View(x.data(), {part * world().size()}, DType::f32), mut(own), {.wire = Wire::bf16}).wait();
  const auto expected = rounded_sum(part * world().size());
  for (std::size_t i = 0; i < own.size(); ++i)
    ASSERT_EQ(own[i], expected[static_cast<std::size_t>(world().rank()) * own.size() + i]) << i;
}

TEST(Reduction, NotANumberReachesAllRanks) {
  for (const auto op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min})
    for (const std::int64_t count : {1, 50000})
      for (int from = 0; from < world().size(); ++from) {
        std::vector<float> x(static_cast<std::size_t>(count), 1.0f);
        if (world().rank() == from) x.back() = std::numeric_limits<float>::quiet_NaN();
        world().all_reduce(mut(x), {.op = op}).wait();
        ASSERT_TRUE(std::isnan(x.back())) << name_of(op) << " from rank " << from;
      }
}

}  // namespace
}  // namespace weft::test
