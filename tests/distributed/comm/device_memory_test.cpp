// Collectives on device memory that the host cannot touch (the CUDA kernels' device on fibers): staged over MPI, and by the
// device's own links (NCCL's groups over a library that passes messages between processes).
#include <algorithm>
#include <chrono>
#include <cmath>
#include <future>
#include <limits>
#include <thread>
#include <vector>

#include "core/cuda/fibers/fiber_device.hpp"
#include "core/cuda/library.hpp"
#include "core/kernels/table.hpp"
#include "parallel/comm/linked_transport.hpp"
#include "parallel/comm/staged_transport.hpp"
#include "parallel/mesh.hpp"
#include "tests/distributed/mpi_test.hpp"
#include "tests/unit/cuda/fake_nccl.hpp"

namespace weft::test {
namespace {

using cuda::fibers::Late;

/// How collectives reach device memory, and which of its queues run late.
enum class Way { staged, linked, linked_early, all_late };

template <Late late>
Device& device_with() {
  static const std::unique_ptr<Device> made =
      cuda::fibers::make_device({.library_folders = {WEFT_FAKE_NCCL_FOLDER}}, late);
  return *made;
}

Device& device(Way way) {
  if (way == Way::all_late) return device_with<Late::all>();
  return way == Way::linked_early ? device_with<Late::computing>() : device_with<Late::others>();
}

DeviceReach reach(
    Way way, LinkWatch::OnFailure on_failure = [](const std::string& report) { ADD_FAILURE() << report; }) {
  Device& reached = device(way);
  if (way == Way::staged)
    return {&reached, [&reached](std::unique_ptr<Transport> transport) {
              return make_staged_transport(std::move(transport), std::make_shared<DeviceStaging>(reached));
            }};
  return {&reached,
          [watch = std::make_shared<LinkWatch>(reached, std::move(on_failure))](std::unique_ptr<Transport> transport) {
            return make_linked_transport(std::move(transport), watch, {"host", 60});
          }};
}

/// The ranks, reaching device memory; groups are made in one order on all ranks, so each test makes its own.
std::unique_ptr<Communicator> device_world(Way way, Priority priority = Priority::urgent,
                                           const std::string& name = "device") {
  return world().split(0, world().rank(), name, priority, reach(way));
}

template <class T>
T as(std::int64_t x) {
  if constexpr (std::is_same_v<T, bf16>)
    return bf16(static_cast<float>(x));
  else
    return static_cast<T>(x);
}

/// Small and different for each rank and element.
template <class T>
std::vector<T> values(int rank, std::int64_t count, std::int64_t offset = 0) {
  std::vector<T> x(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) x[static_cast<std::size_t>(i)] = as<T>(((offset + i) * 7 + rank * 3) % 13);
  return x;
}

template <class T>
std::vector<T> summed(int first, int last, std::int64_t count, std::int64_t offset = 0) {
  std::vector<T> x(static_cast<std::size_t>(count));
  for (std::int64_t i = 0; i < count; ++i) {
    std::int64_t sum = 0;
    for (int rank = first; rank < last; ++rank) sum += ((offset + i) * 7 + rank * 3) % 13;
    x[static_cast<std::size_t>(i)] = as<T>(sum);
  }
  return x;
}

/// An array in the device's memory.
template <class T>
class Array {
 public:
  Array(Way way, const std::vector<T>& host)
      : device_(device(way)), count_(static_cast<std::int64_t>(host.size())), bytes_(host.size() * sizeof(T)),
        data_(device_.memory().allocate(bytes_, MemoryUse::workspace)) {
    put(host);
  }
  ~Array() { device_.memory().deallocate(data_, bytes_, MemoryUse::workspace); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  MutView mut() const { return {data_, {count_}, dtype_of<T>, device_.memory().device()}; }
  void put(const std::vector<T>& host) const {
    ExecContext& exec = device_.exec();
    exec.kernels().transfer.upload(exec, View(host.data(), {count_}, dtype_of<T>), mut());
  }
  std::vector<T> get() const {
    std::vector<T> host(static_cast<std::size_t>(count_));
    ExecContext& exec = device_.exec();
    exec.kernels().transfer.download(exec, mut(), MutView(host.data(), {count_}, dtype_of<T>));
    return host;
  }

 private:
  Device& device_;
  std::int64_t count_;
  std::size_t bytes_;
  void* data_;
};

const std::int64_t counts[] = {1, 17, 4096, 70001};

template <class Element, Way Reached>
struct Kind {
  using T = Element;
  static constexpr Way way = Reached;
};

template <class Kind>
class DeviceMemory : public testing::Test {
 protected:
  static constexpr Way way = Kind::way;
  const std::unique_ptr<Communicator> comm = device_world(way);
  const int ranks = comm->size();
  const int rank = comm->rank();
};
using Kinds = testing::Types<Kind<float, Way::staged>, Kind<bf16, Way::staged>, Kind<double, Way::staged>,
                             Kind<std::int64_t, Way::staged>, Kind<std::uint8_t, Way::staged>, Kind<float, Way::linked>,
                             Kind<bf16, Way::linked>, Kind<double, Way::linked>, Kind<std::int32_t, Way::linked>,
                             Kind<std::int64_t, Way::linked>, Kind<std::uint8_t, Way::linked>,
                             Kind<float, Way::linked_early>, Kind<bf16, Way::linked_early>>;
TYPED_TEST_SUITE(DeviceMemory, Kinds);

TYPED_TEST(DeviceMemory, AllReduceSums) {
  using T = typename TypeParam::T;
  for (const auto count : counts) {
    const Array<T> x(this->way, values<T>(this->rank, count));
    this->comm->all_reduce(x.mut()).wait();
    ASSERT_EQ(x.get(), summed<T>(0, this->ranks, count)) << count;
  }
}

TYPED_TEST(DeviceMemory, AllGatherPutsRanksInOrder) {
  using T = typename TypeParam::T;
  for (const auto count : counts) {
    const Array<T> own(this->way, values<T>(this->rank, count));
    const Array<T> all(this->way, values<T>(99, count * this->ranks)),
        in_place(this->way, values<T>(99, count * this->ranks));
    this->comm->all_gather(own.mut(), all.mut()).wait();
    std::vector<T> expected, start(static_cast<std::size_t>(count * this->ranks), as<T>(5));
    for (int from = 0; from < this->ranks; ++from)
      for (const T x : values<T>(from, count)) expected.push_back(x);
    ASSERT_EQ(all.get(), expected) << count;
    std::ranges::copy(own.get(), start.begin() + this->rank * count);
    in_place.put(start);
    this->comm->all_gather(in_place.mut().slice(this->rank * count, (this->rank + 1) * count), in_place.mut()).wait();
    ASSERT_EQ(in_place.get(), expected) << "in place, " << count;
  }
}

TYPED_TEST(DeviceMemory, ReduceScatterGivesEachRankItsPart) {
  using T = typename TypeParam::T;
  for (const auto count : counts) {
    const auto host = values<T>(this->rank, count * this->ranks);
    const auto expected = summed<T>(0, this->ranks, count, this->rank * count);
    const Array<T> all(this->way, host), own(this->way, values<T>(99, count));
    this->comm->reduce_scatter(all.mut(), own.mut()).wait();
    ASSERT_EQ(own.get(), expected) << count;
    ASSERT_EQ(all.get(), host) << "the input was written to";
    this->comm->reduce_scatter(all.mut(), all.mut().slice(this->rank * count, (this->rank + 1) * count)).wait();
    const auto in_place = all.get();
    ASSERT_TRUE(std::equal(expected.begin(), expected.end(), in_place.begin() + this->rank * count)) << count;
  }
}

TYPED_TEST(DeviceMemory, BroadcastGivesTheRootsValues) {
  using T = typename TypeParam::T;
  for (int root = 0; root < this->ranks; ++root) {
    const Array<T> x(this->way, values<T>(this->rank, 5003));
    this->comm->broadcast(x.mut(), root).wait();
    ASSERT_EQ(x.get(), values<T>(root, 5003)) << root;
  }
}

TYPED_TEST(DeviceMemory, AllToAllTransposesParts) {
  using T = typename TypeParam::T;
  for (const auto count : counts) {
    const Array<T> input(this->way, values<T>(this->rank, count * this->ranks)),
        output(this->way, values<T>(99, count * this->ranks));
    this->comm->all_to_all(input.mut(), output.mut()).wait();
    std::vector<T> expected;
    for (int from = 0; from < this->ranks; ++from)
      for (const T x : values<T>(from, count, this->rank * count)) expected.push_back(x);
    ASSERT_EQ(output.get(), expected) << count;
  }
}

TYPED_TEST(DeviceMemory, ExclusiveScanSumsLowerRanks) {
  using T = typename TypeParam::T;
  for (const auto count : counts) {
    const Array<T> input(this->way, values<T>(this->rank, count)), output(this->way, values<T>(99, count));
    this->comm->exclusive_scan(input.mut(), output.mut()).wait();
    ASSERT_EQ(output.get(), summed<T>(0, this->rank, count)) << count;
  }
}

TYPED_TEST(DeviceMemory, MessagesArriveInOrder) {
  using T = typename TypeParam::T;
  if (this->ranks == 1) return;
  const int right = (this->rank + 1) % this->ranks, left = (this->rank + this->ranks - 1) % this->ranks;
  for (const auto count : counts) {
    const Array<T> first(this->way, values<T>(this->rank, count)), second(this->way, values<T>(this->rank, count, 5));
    const Array<T> a(this->way, values<T>(99, count)), b(this->way, values<T>(99, count));
    Work works[] = {this->comm->recv(a.mut(), left), this->comm->send(first.mut(), right),
                    this->comm->recv(b.mut(), left), this->comm->send(second.mut(), right)};
    for (Work& work : works) work.wait();
    ASSERT_EQ(a.get(), values<T>(left, count));
    ASSERT_EQ(b.get(), values<T>(left, count, 5));
  }
}

TYPED_TEST(DeviceMemory, SendRecvPassesUnequalPartsRoundTheRing) {
  using T = typename TypeParam::T;
  if (this->ranks == 1) return;
  const int right = (this->rank + 1) % this->ranks, left = (this->rank + this->ranks - 1) % this->ranks;
  for (const auto count : counts) {
    const Array<T> sent(this->way, values<T>(this->rank, count + this->rank)),
        got(this->way, values<T>(99, count + left));
    this->comm->send_recv(sent.mut(), right, got.mut(), left).wait();
    ASSERT_EQ(got.get(), values<T>(left, count + left)) << count;
  }
}

std::string name_of(Way way) {
  if (way == Way::staged) return "staged";
  return way == Way::linked ? "linked" : "linked_early";
}

class DeviceMemoryGroups : public testing::TestWithParam<Way> {};
INSTANTIATE_TEST_SUITE_P(Ways, DeviceMemoryGroups, testing::Values(Way::staged, Way::linked, Way::linked_early),
                         [](const auto& test) { return name_of(test.param); });

TEST_P(DeviceMemoryGroups, ManyGroupsAndHostOperationsKeepOneOrder) {
  const auto comm = device_world(GetParam(), Priority::bulk);
  const auto other = comm->split(0, -comm->rank(), "other", Priority::bulk);
  const int ranks = comm->size();
  // More than the MPI transport has tags for at a time, without waiting in between.
  constexpr int rounds = 100;
  constexpr std::int64_t count = 20000;
  std::vector<std::unique_ptr<Array<float>>> arrays;
  std::vector<std::vector<float>> hosts(rounds, std::vector<float>(count, static_cast<float>(comm->rank())));
  std::vector<Work> works;
  for (int round = 0; round < rounds; ++round) {
    arrays.push_back(std::make_unique<Array<float>>(GetParam(), values<float>(comm->rank(), count, round)));
    Communicator& group = round % 3 == 0 ? *other : *comm;
    works.push_back(group.all_reduce(arrays.back()->mut()));
    works.push_back(comm->all_reduce(MutView(hosts[static_cast<std::size_t>(round)].data(), {count}, DType::f32)));
  }
  works.push_back(comm->barrier());
  for (Work& work : works) work.wait();
  const auto sum = static_cast<float>(ranks * (ranks - 1) / 2);
  for (int round = 0; round < rounds; ++round) {
    ASSERT_EQ(arrays[static_cast<std::size_t>(round)]->get(), summed<float>(0, ranks, count, round)) << round;
    ASSERT_EQ(hosts[static_cast<std::size_t>(round)], std::vector<float>(count, sum)) << round;
  }
}

TEST_P(DeviceMemoryGroups, AMeshOverThemReachesTheDeviceOnEveryAxis) {
  const auto comm = device_world(GetParam());
  Mesh mesh(*comm, comm_log(), {});
  for (const auto axis : {Axis::dp, Axis::tp}) {
    const Array<double> x(GetParam(), values<double>(comm->rank(), 100)),
        y(GetParam(), values<double>(99, 100 * mesh.size(axis)));
    mesh.comm(axis).all_reduce(x.mut()).wait();
    mesh.comm(axis).all_gather(x.mut(), y.mut()).wait();
    const int ranks = mesh.size(axis), first = axis == Axis::dp ? 0 : comm->rank();
    const auto expected = summed<double>(first, first + ranks, 100);
    for (int part = 0; part < ranks; ++part) {
      const auto all = y.get();
      ASSERT_TRUE(std::equal(expected.begin(), expected.end(), all.begin() + part * 100)) << name_of(axis);
    }
  }
  EXPECT_EQ(mesh.comm(Axis::tp).recordable(), true);
}

CollectiveTotals all_reduces_of(const std::string& group) {
  for (const CollectiveTotals& row : comm_log().totals())
    if (row.group == group && row.kind == CollectiveKind::all_reduce) return row;
  return {};
}

TEST_P(DeviceMemoryGroups, TheLedgerCountsEachCollectiveOnce) {
  const std::string name = name_of(GetParam()) + " ledger";
  auto comm = device_world(GetParam(), Priority::urgent, name);
  const auto ranks = static_cast<std::uint64_t>(comm->size());
  if (ranks == 1) return;
  const Array<float> x(GetParam(), values<float>(0, 1000));
  for (int i = 0; i < 3; ++i) comm->all_reduce(x.mut()).wait();
  comm.reset();
  const CollectiveTotals totals = all_reduces_of(name);
  EXPECT_EQ(totals.count, 3u);
  EXPECT_EQ(totals.wire_bytes, 3 * (2 * 4000 * (ranks - 1) / ranks));
}

TEST_P(DeviceMemoryGroups, WhatIsInFlightEndsBeforeItsGroupGoes) {
  const Array<float> x(GetParam(), values<float>(world().rank(), 70001));
  for (int i = 0; i < 5; ++i) {
    x.put(values<float>(world().rank(), 70001));
    static_cast<void>(device_world(GetParam())->all_reduce(x.mut()));
    ASSERT_EQ(x.get(), summed<float>(0, world().size(), 70001));
  }
}

TEST_P(DeviceMemoryGroups, AGroupWithoutTheDeviceRefusesItsMemory) {
  const Array<float> x(GetParam(), values<float>(0, 10));
  EXPECT_THROW(static_cast<void>(world().all_reduce(x.mut())), Error);
  const auto comm = device_world(GetParam());
  std::vector<float> host(static_cast<std::size_t>(10 * comm->size()));
  EXPECT_THROW(static_cast<void>(comm->all_gather(x.mut(), MutView(host.data(), {10 * comm->size()}, DType::f32))),
               Error);
}

/// What only links do differently from the host's transport.
class LinkedMemory : public testing::TestWithParam<Way> {
 protected:
  Device& own() const { return device(GetParam()); }
};
INSTANTIATE_TEST_SUITE_P(Ways, LinkedMemory, testing::Values(Way::linked, Way::linked_early),
                         [](const auto& test) { return name_of(test.param); });

/// Sums of them are exact in f32, and neither they nor their sums in bf16.
std::vector<float> fine_values(int rank, std::int64_t count) {
  std::vector<float> x(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<float>((i * 2654435761u + static_cast<unsigned>(rank) * 40503u) % 4001) / 64.0f - 30.0f;
  return x;
}

TEST_P(LinkedMemory, Bf16OnTheWireRoundsAsTheHostsTransportDoes) {
  const auto comm = device_world(GetParam());
  const ReduceOptions wire{.wire = Wire::bf16};
  for (const std::int64_t count : {1, 17, 4099}) {
    const std::vector<float> own = fine_values(comm->rank(), count * comm->size());
    std::vector<float> host = own, part(static_cast<std::size_t>(count));
    const MutView host_view(host.data(), {count * comm->size()}, DType::f32);
    const Array<float> x(GetParam(), own), y(GetParam(), part);
    comm->reduce_scatter(x.mut(), y.mut(), wire).wait();
    comm->reduce_scatter(host_view, MutView(part.data(), {count}, DType::f32), wire).wait();
    ASSERT_EQ(y.get(), part) << count;
    comm->all_reduce(x.mut(), wire).wait();
    comm->all_reduce(host_view, wire).wait();
    ASSERT_EQ(x.get(), host) << count;
  }
}

TEST_P(LinkedMemory, NanWinsInMaxAndMin) {
  const auto comm = device_world(GetParam());
  const float nan = std::numeric_limits<float>::quiet_NaN(), rank = static_cast<float>(comm->rank());
  const float last = static_cast<float>(comm->size() - 1);
  for (const ReduceOp op : {ReduceOp::max, ReduceOp::min}) {
    const Array<float> x(GetParam(), {comm->rank() == 0 ? nan : 1.0f, rank, -rank});
    comm->all_reduce(x.mut(), {.op = op}).wait();
    const std::vector<float> got = x.get();
    EXPECT_TRUE(std::isnan(got[0]));
    EXPECT_EQ(got[1], op == ReduceOp::max ? last : 0);
    EXPECT_EQ(got[2], op == ReduceOp::max ? 0 : -last);
  }
}

TEST(LinkedMemoryOfALateDevice, WaitingDoesNotBlockTheHost) {
  const auto comm = device_world(Way::all_late);
  if (comm->size() == 1) return;
  const Array<float> x(Way::all_late, values<float>(0, 100)), y(Way::all_late, values<float>(9, 100));
  // Were the wait to block, rank 0 would not come to its send.
  char waited = 0;
  if (comm->rank() == 1) {
    comm->recv(y.mut(), 0).wait();
    world().send(View(&waited, {1}, DType::u8), 0).wait();
    EXPECT_EQ(y.get(), values<float>(0, 100));
  } else if (comm->rank() == 0) {
    world().recv(MutView(&waited, {1}, DType::u8), 1).wait();
    comm->send(x.mut(), 1).wait();
  }
}

TEST_P(LinkedMemory, ARecordedStepRepeatsItsCollectivesAndTheLedgerCountsThem) {
  const std::string name = name_of(GetParam()) + " recorded";
  auto comm = device_world(GetParam(), Priority::urgent, name);
  const int ranks = comm->size(), rank = comm->rank();
  const int right = (rank + 1) % ranks, left = (rank + ranks - 1) % ranks;
  ExecContext& exec = own().exec();
  const auto& elementwise = exec.kernels().elementwise;
  const std::int64_t count = 1000;
  const Array<float> x(GetParam(), std::vector<float>(count, 1)), y(GetParam(), std::vector<float>(count, 0));
  const Array<float> ones(GetParam(), std::vector<float>(count, 1));
  const auto step = [&] {
    elementwise.add(exec, x.mut(), ones.mut(), x.mut());
    comm->all_reduce(x.mut(), {.wire = Wire::bf16}).wait();
    if (ranks > 1) comm->send_recv(x.mut(), right, y.mut(), left).wait();
    elementwise.scale(exec, 0.5f, x.mut());
  };
  step();
  const std::unique_ptr<WorkGraph> graph = own().capture(step);
  ASSERT_EQ(x.get(), std::vector<float>(count, static_cast<float>(ranks))) << "recording ran something";
  constexpr int replays = 3;
  float expected = static_cast<float>(ranks);
  for (int i = 0; i < replays; ++i) {
    graph->launch();
    expected = (expected + 1) * static_cast<float>(ranks) / 2;
    ASSERT_EQ(x.get(), std::vector<float>(count, expected)) << i;
    ASSERT_TRUE(ranks == 1 || y.get() == std::vector<float>(count, 2 * expected)) << i;
  }
  comm.reset();
  if (ranks == 1) return;
  const CollectiveTotals totals = all_reduces_of(name);
  EXPECT_EQ(totals.count, 1u + replays);
  EXPECT_EQ(totals.wire_bytes, totals.count * (2 * 2 * count * static_cast<std::uint64_t>(ranks - 1) / ranks));
  EXPECT_TRUE(comm_log().activity().active.empty()) << "a replayed collective is still in flight";
}

// A ring's block travels beside the products that come next: nothing may have to ask for it.
TEST_P(LinkedMemory, ASendRecvTravelsBeforeItIsWaitedFor) {
  if (world().size() == 1) return;
  const auto comm = device_world(GetParam());
  const int right = (comm->rank() + 1) % comm->size(), left = (comm->rank() + comm->size() - 1) % comm->size();
  const Array<float> sent(GetParam(), values<float>(comm->rank(), 1000)), got(GetParam(), std::vector<float>(1000));
  Work work = comm->send_recv(sent.mut(), right, got.mut(), left);
  const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(60);
  while (!work.done() && std::chrono::steady_clock::now() < end) std::this_thread::yield();
  EXPECT_TRUE(work.done());
  work.wait();
  EXPECT_EQ(got.get(), values<float>(left, 1000));
}

TEST_P(LinkedMemory, GroupsOfTheSameRanksAndPriorityShareOneCommunicator) {
  if (world().size() == 1) return;
  const cuda::Library library("the fake", std::vector<std::string_view>{WEFT_FAKE_NCCL_FOLDER "/libweft_fiber_nccl.so"},
                              {});
  const auto& fake = *reinterpret_cast<const FakeNccl*>(library.function<void()>("fake_nccl"));
  const auto top = device_world(GetParam());
  const int alive = fake.alive();
  {
    const auto first = top->split(0, top->rank(), "first"), second = top->split(0, top->rank(), "second");
    EXPECT_EQ(fake.alive(), alive) << "of the ranks of the group that they were split from";
    const auto bulk = top->split(0, top->rank(), "bulk", Priority::bulk);
    EXPECT_EQ(fake.alive(), alive + 1);
    const auto reversed = top->split(0, -top->rank(), "reversed");
    EXPECT_EQ(fake.alive(), alive + 2);
    const Array<float> x(GetParam(), values<float>(top->rank(), 100)), y(GetParam(), values<float>(top->rank(), 100));
    Work one = first->all_reduce(x.mut()), other = second->all_reduce(y.mut());
    other.wait();
    one.wait();
    EXPECT_EQ(x.get(), summed<float>(0, top->size(), 100));
    EXPECT_EQ(y.get(), x.get());
  }
  EXPECT_EQ(fake.alive(), alive);
  const Array<float> x(GetParam(), values<float>(top->rank(), 100));
  top->all_reduce(x.mut()).wait();
  EXPECT_EQ(x.get(), summed<float>(0, top->size(), 100));
}

TEST_P(LinkedMemory, AnErrorOfTheLinksIsReportedOnceAndEndsWhatIsInFlight) {
  if (world().size() == 1) return;
  const cuda::Library library("the fake", std::vector<std::string_view>{WEFT_FAKE_NCCL_FOLDER "/libweft_fiber_nccl.so"},
                              {});
  const auto& fake = *reinterpret_cast<const FakeNccl*>(library.function<void()>("fake_nccl"));
  std::promise<std::string> reported;
  {
    const auto comm = world().split(0, world().rank(), "broken", Priority::urgent,
                                    reach(GetParam(), [&](const std::string& text) { reported.set_value(text); }));
    const Array<float> x(GetParam(), values<float>(comm->rank(), 100));
    // Every rank finds its own error: the stand-in's calls then do nothing.
    fake.fail_rank(comm->rank());
    Work work = comm->all_reduce(x.mut());
    const std::string report = reported.get_future().get();
    EXPECT_NE(report.find(fmt::format("rank {} of {} in group broken", comm->rank(), comm->size())), std::string::npos)
        << report;
    EXPECT_THROW(comm->all_reduce(x.mut()).wait(), Error);
    fake.fail_rank(-1);
  }
  world().barrier().wait();
}

}  // namespace
}  // namespace weft::test
