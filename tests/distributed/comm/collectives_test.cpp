// Every collective against its definition, with integers that sum exactly in every dtype.
#include <algorithm>
#include <cstring>
#include <numeric>
#include <type_traits>
#include <vector>

#include "tests/distributed/mpi_test.hpp"

namespace weft::test {
namespace {

/// Small, different for each rank and element; sums over 8 ranks are exact in bf16 and u8.
int value(int rank, std::int64_t i) {
  return static_cast<int>((static_cast<std::uint64_t>(i) * 7 + static_cast<std::uint64_t>(rank) * 3) % 13);
}

template <class T>
T as(int x) {
  if constexpr (std::is_same_v<T, bf16>)
    return bf16(static_cast<float>(x));
  else
    return static_cast<T>(x);
}

template <class T>
std::vector<T> inputs(int rank, std::int64_t count, std::int64_t offset = 0) {
  std::vector<T> x(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) x[static_cast<std::size_t>(i)] = as<T>(value(rank, offset + i));
  return x;
}

template <class T>
MutView mut(std::vector<T>& x) {
  return {x.data(), {static_cast<std::int64_t>(x.size())}, dtype_of<T>};
}
template <class T>
View view(const std::vector<T>& x) {
  return {x.data(), {static_cast<std::int64_t>(x.size())}, dtype_of<T>};
}

template <class T>
T reduced(ReduceOp op, int first, int last, std::int64_t i) {
  int result = value(first, i);
  for (int rank = first + 1; rank < last; ++rank) {
    const int x = value(rank, i);
    result = op == ReduceOp::sum ? result + x : op == ReduceOp::max ? std::max(result, x) : std::min(result, x);
  }
  return as<T>(result);
}

/// Nothing, one, odd, around the limits between algorithms, several blocks.
const std::int64_t counts[] = {0, 1, 3, 17, 1001, 4096, 5003, 65536, 300007};

template <class T>
class Collectives : public testing::Test {};
using Types = testing::Types<float, bf16, double, std::int32_t, std::int64_t, std::uint8_t>;
TYPED_TEST_SUITE(Collectives, Types);

TYPED_TEST(Collectives, AllReduceIsTheReductionOverRanks) {
  const int ranks = world().size(), rank = world().rank();
  for (const auto op : {ReduceOp::sum, ReduceOp::max, ReduceOp::min})
    for (const auto count : counts) {
      auto x = inputs<TypeParam>(rank, count);
      world().all_reduce(mut(x), {.op = op}).wait();
      for (std::int64_t i = 0; i < count; ++i)
        ASSERT_EQ(x[static_cast<std::size_t>(i)], reduced<TypeParam>(op, 0, ranks, i))
            << name_of(op) << count << " at " << i;
    }
}

TYPED_TEST(Collectives, AllGatherPutsRanksInOrder) {
  const int ranks = world().size(), rank = world().rank();
  for (const auto count : counts) {
    const auto own = inputs<TypeParam>(rank, count);
    std::vector<TypeParam> all(static_cast<std::size_t>(count * ranks));
    world().all_gather(view(own), mut(all)).wait();
    auto in_place = std::vector<TypeParam>(all.size());
    std::copy(own.begin(), own.end(), in_place.begin() + rank * count);
    world().all_gather(mut(in_place).slice(rank * count, (rank + 1) * count), mut(in_place)).wait();
    for (int from = 0; from < ranks; ++from)
      for (std::int64_t i = 0; i < count; ++i) {
        ASSERT_EQ(all[static_cast<std::size_t>(from * count + i)], as<TypeParam>(value(from, i))) << count;
        ASSERT_EQ(in_place[static_cast<std::size_t>(from * count + i)], as<TypeParam>(value(from, i))) << count;
      }
  }
}

TYPED_TEST(Collectives, ReduceScatterGivesEachRankItsPart) {
  const int ranks = world().size(), rank = world().rank();
  for (const auto op : {ReduceOp::sum, ReduceOp::max})
    for (const auto count : counts) {
      auto all = inputs<TypeParam>(rank, count * ranks);
      const auto before = all;
      std::vector<TypeParam> own(static_cast<std::size_t>(count));
      world().reduce_scatter(view(all), mut(own), {.op = op}).wait();
      ASSERT_EQ(all, before) << "the input was written to";
      for (std::int64_t i = 0; i < count; ++i)
        ASSERT_EQ(own[static_cast<std::size_t>(i)], reduced<TypeParam>(op, 0, ranks, rank * count + i)) << count;
      world().reduce_scatter(view(all), mut(all).slice(rank * count, (rank + 1) * count), {.op = op}).wait();
      ASSERT_TRUE(std::equal(own.begin(), own.end(), all.begin() + rank * count)) << "in place, " << count;
    }
}

TYPED_TEST(Collectives, BroadcastGivesTheRootsValues) {
  for (int root = 0; root < world().size(); ++root)
    for (const auto count : counts) {
      auto x = inputs<TypeParam>(world().rank(), count);
      world().broadcast(mut(x), root).wait();
      ASSERT_EQ(x, inputs<TypeParam>(root, count)) << "root " << root << ", " << count;
    }
}

TYPED_TEST(Collectives, AllToAllTransposesParts) {
  const int ranks = world().size(), rank = world().rank();
  for (const auto count : counts) {
    const auto input = inputs<TypeParam>(rank, count * ranks);
    std::vector<TypeParam> output(input.size());
    world().all_to_all(view(input), mut(output)).wait();
    for (int from = 0; from < ranks; ++from)
      for (std::int64_t i = 0; i < count; ++i)
        ASSERT_EQ(output[static_cast<std::size_t>(from * count + i)], as<TypeParam>(value(from, rank * count + i)))
            << count;
  }
}

TYPED_TEST(Collectives, ExclusiveScanReducesLowerRanks) {
  const int rank = world().rank();
  for (const auto op : {ReduceOp::sum, ReduceOp::max})
    for (const auto count : counts) {
      const auto input = inputs<TypeParam>(rank, count);
      std::vector<TypeParam> output(input.size(), as<TypeParam>(99));
      world().exclusive_scan(view(input), mut(output), {.op = op}).wait();
      for (std::int64_t i = 0; i < count; ++i) {
        const auto y = output[static_cast<std::size_t>(i)];
        if (rank > 0)
          ASSERT_EQ(y, reduced<TypeParam>(op, 0, rank, i)) << count;
        else if (op == ReduceOp::sum)
          ASSERT_EQ(y, as<TypeParam>(0));
        else
          ASSERT_LE(static_cast<double>(
                        static_cast<std::conditional_t<std::is_same_v<TypeParam, bf16>, float, TypeParam>>(y)),
                    0);
      }
    }
}

TYPED_TEST(Collectives, MessagesArriveInOrderAndByTag) {
  const int ranks = world().size(), rank = world().rank();
  if (ranks == 1) return;
  const int right = (rank + 1) % ranks, left = (rank + ranks - 1) % ranks;
  for (const auto count : counts) {
    const auto first = inputs<TypeParam>(rank, count), second = inputs<TypeParam>(rank, count, 5);
    const auto tagged = inputs<TypeParam>(rank, count, 9);
    auto a = std::vector<TypeParam>(first.size()), b = a, c = a;
    auto received_tagged = world().recv(mut(c), left, 3);
    auto sent_first = world().send(view(first), right), sent_second = world().send(view(second), right);
    auto sent_tagged = world().send(view(tagged), right, 3);
    world().recv(mut(a), left).wait();
    world().recv(mut(b), left).wait();
    received_tagged.wait();
    sent_first.wait();
    sent_second.wait();
    sent_tagged.wait();
    ASSERT_EQ(a, inputs<TypeParam>(left, count));
    ASSERT_EQ(b, inputs<TypeParam>(left, count, 5));
    ASSERT_EQ(c, inputs<TypeParam>(left, count, 9));
  }
}

TYPED_TEST(Collectives, SendRecvPassesUnequalPartsRoundTheRing) {
  const int ranks = world().size(), rank = world().rank();
  if (ranks == 1) return;
  const int right = (rank + 1) % ranks, left = (rank + ranks - 1) % ranks;
  for (const auto count : counts) {
    const auto sent = inputs<TypeParam>(rank, count + rank), second = inputs<TypeParam>(rank, count, 5);
    auto from_left = inputs<TypeParam>(99, count + left), from_right = inputs<TypeParam>(99, count);
    // One rank waits before it starts the second: no order of starts may block another rank.
    auto work = world().send_recv(view(sent), right, mut(from_left), left, 2);
    if (rank == 0) work.wait();
    world().send_recv(view(second), left, mut(from_right), right).wait();
    work.wait();
    ASSERT_EQ(from_left, inputs<TypeParam>(left, count + left)) << count;
    ASSERT_EQ(from_right, inputs<TypeParam>(right, count, 5)) << count;
  }
}

TYPED_TEST(Collectives, SendRecvMeetsSendAndRecvOfOtherRanks) {
  const int ranks = world().size(), rank = world().rank();
  if (ranks == 1) return;
  const int right = (rank + 1) % ranks, left = (rank + ranks - 1) % ranks;
  const auto sent = inputs<TypeParam>(rank, 70001);
  auto got = inputs<TypeParam>(99, 70001);
  if (rank % 2 == 0) {
    world().send_recv(view(sent), right, mut(got), left, 7).wait();
  } else {
    auto out = world().send(view(sent), right, 7);
    world().recv(mut(got), left, 7).wait();
    out.wait();
  }
  ASSERT_EQ(got, inputs<TypeParam>(left, 70001));
}

}  // namespace
}  // namespace weft::test
