// Groups of the mesh, many collectives in flight on overlapping groups, and what the log says about them.
#include <gmock/gmock.h>
#include <unistd.h>

#include <filesystem>
#include <numeric>
#include <vector>

#include "parallel/comm/agreement.hpp"
#include "parallel/comm/flight_recorder.hpp"
#include "parallel/mesh.hpp"
#include "tests/distributed/mpi_test.hpp"

namespace weft::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

MutView mut(std::vector<float>& x) { return {x.data(), {static_cast<std::int64_t>(x.size())}, DType::f32}; }

template <class Body>
std::string message_of(Body&& body) {
  try {
    body();
  } catch (const Error& error) {
    return error.what();
  }
  return "no error";
}

std::vector<int> sum_of_ranks(Communicator& comm) {
  std::vector<std::int32_t> all(static_cast<std::size_t>(comm.size()));
  const std::int32_t own = world().rank();
  comm.all_gather(View(&own, {1}, DType::i32), MutView(all.data(), {comm.size()}, DType::i32)).wait();
  return {all.begin(), all.end()};
}

TEST(Split, OrdersByKeyThenRank) {
  const int rank = world().rank(), size = world().size();
  const auto reversed = world().split(0, -rank, "reversed");
  EXPECT_EQ(reversed->rank(), size - 1 - rank);
  std::vector<int> expected(static_cast<std::size_t>(size));
  std::iota(expected.rbegin(), expected.rend(), 0);
  EXPECT_EQ(reversed->members(), expected);
  EXPECT_EQ(sum_of_ranks(*reversed), expected);

  const auto odd_even = world().split(rank % 2, 0, "parity");
  EXPECT_EQ(odd_even->size(), (size + 1 - rank % 2) / 2);
  EXPECT_EQ(odd_even->rank(), rank / 2);
  const auto halves = odd_even->split(odd_even->rank() < 1, 0, "part of parity");
  EXPECT_EQ(halves->size(), odd_even->rank() < 1 ? 1 : odd_even->size() - 1);
  EXPECT_EQ(sum_of_ranks(*halves), halves->members());
}

TEST(Mesh, GroupsDifferAlongTheirAxesAlone) {
  const int size = world().size(), rank = world().rank();
  const int tp = 2, dp = size / tp;
  Mesh mesh(world(), comm_log(), {.tp = tp});
  EXPECT_EQ(mesh.size(Axis::dp), dp);
  EXPECT_EQ(mesh.coordinate(Axis::tp), rank % tp);
  EXPECT_EQ(mesh.coordinate(Axis::dp), rank / tp);
  EXPECT_THAT(sum_of_ranks(mesh.comm(Axis::tp)), ElementsAre(rank / tp * tp, rank / tp * tp + 1));
  std::vector<int> replicas;
  for (int d = 0; d < dp; ++d) replicas.push_back(d * tp + rank % tp);
  EXPECT_EQ(sum_of_ranks(mesh.comm(Axis::dp)), replicas);
  EXPECT_EQ(mesh.comm(Axis::pp).size(), 1);
  std::vector<int> all(static_cast<std::size_t>(size));
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(sum_of_ranks(mesh.comm({Axis::tp, Axis::dp})), all);
  EXPECT_EQ(&mesh.comm({Axis::tp, Axis::dp}), &mesh.comm({Axis::dp, Axis::tp}));
}

TEST(Mesh, NamesMeshesThatFit) {
  const int size = world().size();
  const auto message = message_of([&] { Mesh(world(), comm_log(), {.dp = size, .tp = 2}); });
  EXPECT_THAT(message, HasSubstr(fmt::format("--dp {} --tp 2 takes {} ranks, and there are {}", size, 2 * size, size)));
  EXPECT_THAT(message, HasSubstr(fmt::format("--dp {}", size)));
  EXPECT_THROW(Mesh(world(), comm_log(), {.tp = size + 1}), UserError);
  EXPECT_THROW(Mesh(world(), comm_log(), {.sp = 0}), UserError);
}

TEST(InFlight, ManyCollectivesOnOverlappingGroupsEndInAnyOrderOfWaits) {
  Mesh mesh(world(), comm_log(), {.tp = 2});
  Communicator* groups[] = {&mesh.comm(Axis::dp), &mesh.comm(Axis::tp), &world()};
  // More than a group's window of collectives, and sizes on both sides of the limits between algorithms and priorities.
  constexpr int rounds = 80;
  const std::int64_t sizes[] = {100001, 7, 30000};
  std::vector<std::vector<float>> data;
  std::vector<Work> works;
  for (int round = 0; round < rounds; ++round)
    for (int g = 0; g < 3; ++g) {
      data.emplace_back(static_cast<std::size_t>(sizes[(round + g) % 3]), static_cast<float>(world().rank() + round));
      works.push_back(groups[g]->all_reduce(mut(data.back())));
    }
  for (std::size_t i = works.size(); i-- > 0;) works[i].wait();
  for (int round = 0; round < rounds; ++round)
    for (int g = 0; g < 3; ++g) {
      float expected = 0;
      for (const int member : groups[g]->members()) expected += static_cast<float>(member + round);
      const auto& x = data[static_cast<std::size_t>(3 * round + g)];
      ASSERT_EQ(x.front(), expected);
      ASSERT_EQ(x.back(), expected);
    }
}

TEST(InFlight, AWindowFullOfQueuedCollectivesIsNotOvertakenOnALateRank) {
  const auto first = world().split(0, world().rank(), "first", Priority::bulk);
  const auto second = world().split(0, world().rank(), "second", Priority::bulk);
  constexpr std::int64_t large = 1 << 18;
  constexpr int many = 70;  // more than the window of one group
  std::vector<std::vector<float>> data;
  std::vector<Work> works;
  const auto add = [&](Communicator& group, std::int64_t count, int number) {
    data.emplace_back(static_cast<std::size_t>(count), static_cast<float>(world().rank() + number));
    works.push_back(group.all_reduce(mut(data.back())));
  };
  // The rank that is late leaves the others with a full queue, and finds a full one itself.
  const bool late = world().rank() == 1;
  if (late) ::usleep(200000);
  for (int i = 0; i < 2; ++i) add(*second, large, i);
  for (int i = 0; i < many; ++i) add(*first, large, i);
  if (late) ::usleep(200000);
  // Small ones are urgent: of the group with the full window, and of one that has nothing else to do.
  add(*first, 4, many);
  add(world(), 4, many);
  works.back().wait();
  for (Work& work : works) work.wait();
  const int size = world().size(), ranks = size * (size - 1) / 2;
  for (std::size_t i = 0; i < data.size(); ++i) {
    const int number = i < 2 ? static_cast<int>(i) : std::min(static_cast<int>(i) - 2, many);
    ASSERT_EQ(data[i].front(), static_cast<float>(ranks + size * number)) << i;
    ASSERT_EQ(data[i].back(), static_cast<float>(ranks + size * number)) << i;
  }
}

TEST(InFlight, TheLastOwnerOfStorageMayBeTheCollective) {
  bool freed = false;
  Work work;
  {
    std::shared_ptr<std::vector<float>> x(new std::vector<float>(200000, 1.0f), [&freed](std::vector<float>* gone) {
      freed = true;
      delete gone;
    });
    work = world().all_reduce(mut(*x), {.keep = x});
    EXPECT_TRUE(work.done() || !freed);
  }
  work.wait();
  EXPECT_TRUE(freed);
}

TEST(Face, RefusesWrongArgumentsBeforeAnythingIsSent) {
  std::vector<float> x(12), y(12 * static_cast<std::size_t>(world().size()));
  MutView strided = mut(x).reshaped({3, 4});
  strided.shape[1] = 2;
  EXPECT_THROW((void)world().all_reduce(strided), Error);
  EXPECT_THROW((void)world().all_gather(mut(x), mut(x)), Error);
  EXPECT_THROW((void)world().reduce_scatter(mut(x), mut(x)), Error);
  EXPECT_THROW((void)world().broadcast(mut(x), world().size()), Error);
  EXPECT_THROW((void)world().send(mut(x), world().rank()), Error);
  EXPECT_THROW((void)world().all_to_all(mut(y), mut(y)), Error);
  std::vector<std::uint16_t> words(4);
  EXPECT_THROW((void)world().all_reduce(MutView(words.data(), {4}, DType::u16)), Error);
  std::vector<double> wide(4);
  EXPECT_THROW((void)world().all_reduce(MutView(wide.data(), {4}, DType::f64), {.wire = Wire::bf16}), Error);
  world().barrier().wait();
}

TEST(Log, CountsWireBytesByGroupAndOperation) {
  const auto group = world().split(0, world().rank(), "counted");
  std::vector<float> x(1000 * static_cast<std::size_t>(world().size()));
  for (int i = 0; i < 3; ++i) group->all_reduce(mut(x)).wait();
  group->all_reduce(mut(x), {.wire = Wire::bf16}).wait();
  const std::uint64_t bytes =
      2 * x.size() * 4 * static_cast<std::uint64_t>(world().size() - 1) / static_cast<std::uint64_t>(world().size());
  bool found = false;
  for (const auto& totals : comm_log().totals()) {
    if (totals.group != "counted") continue;
    found = true;
    EXPECT_EQ(totals.kind, CollectiveKind::all_reduce);
    EXPECT_EQ(totals.count, 4u);
    EXPECT_EQ(totals.wire_bytes, 3 * bytes + bytes / 2);
    EXPECT_GT(totals.total_seconds, 0);
  }
  EXPECT_TRUE(found);
}

TEST(Log, WritesCollectivesToTheFlightRecord) {
  const auto path = std::filesystem::temp_directory_path() / fmt::format("weft-flight-{}", ::getpid());
  CommLog& log = comm_log();
  log.open_flight_recorder(path, world().rank(), "here");
  log.set_step(7);
  log.set_phase("backward");
  std::vector<float> x(5);
  world().all_reduce(mut(x)).wait();
  world().barrier().wait();
  const auto record = read_flight_record(path);
  std::filesystem::remove(path);
  EXPECT_EQ(record.rank, world().rank());
  EXPECT_EQ(record.step, 7);
  ASSERT_EQ(record.entries.size(), 2u);
  EXPECT_EQ(record.entries[0].kind, CollectiveKind::all_reduce);
  EXPECT_EQ(record.entries[0].group, "world");
  EXPECT_EQ(record.entries[0].step, 7);
  EXPECT_EQ(record.entries[0].phase, "backward");
  EXPECT_EQ(record.entries[1].sequence, record.entries[0].sequence + 1);
  EXPECT_GE(record.entries[1].ended_ns, record.entries[1].begun_ns);
}

TEST(Agreement, NamesTheRankAndTheLineThatDiffer) {
  check_same_on_all_ranks(world(), "the options", "steps = 10\nseed = 1\n");
  const int odd = world().size() - 1;
  const std::string text = world().rank() == odd ? "steps = 10\nseed = 2\n" : "steps = 10\nseed = 1\n";
  EXPECT_EQ(
      message_of([&] { check_same_on_all_ranks(world(), "the options", text); }),
      fmt::format("the options differ between ranks: line 2 is 'seed = 1' on rank 0 and 'seed = 2' on rank {}", odd));
  const std::string more = world().rank() == odd ? "a\nb" : "a";
  EXPECT_EQ(message_of([&] { check_same_on_all_ranks(world(), "the options", more); }),
            fmt::format("the options differ between ranks: line 2 is nothing more on rank 0 and 'b' on rank {}", odd));
}

TEST(Alive, AllRanksAnswer) {
  EXPECT_TRUE(mpi().all_alive(60));
  EXPECT_TRUE(mpi().all_alive(60));
  EXPECT_EQ(mpi().local_size(), world().size());
  EXPECT_EQ(mpi().local_rank(), world().rank());
}

}  // namespace
}  // namespace weft::test
