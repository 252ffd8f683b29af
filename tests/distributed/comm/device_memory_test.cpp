// Collectives on device memory that the host cannot touch (the CUDA kernels' device on fibers), staged over MPI.
#include <algorithm>
#include <vector>

#include "core/cuda/fibers/fiber_device.hpp"
#include "core/kernels/table.hpp"
#include "parallel/comm/staged_transport.hpp"
#include "parallel/mesh.hpp"
#include "tests/distributed/mpi_test.hpp"

namespace weft::test {
namespace {

Device& device() {
  static const std::unique_ptr<Device> made = cuda::fibers::make_device({});
  return *made;
}

/// The ranks, reaching device memory; groups are made in one order on all ranks, so each test makes its own.
std::unique_ptr<Communicator> device_world(Priority priority = Priority::urgent) {
  return world().split(0, world().rank(), "device", priority,
                       {&device(), [](std::unique_ptr<Transport> transport) {
                          return make_staged_transport(std::move(transport), std::make_shared<DeviceStaging>(device()));
                        }});
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
  explicit Array(const std::vector<T>& host)
      : count_(static_cast<std::int64_t>(host.size())), bytes_(host.size() * sizeof(T)),
        data_(device().memory().allocate(bytes_, MemoryUse::workspace)) {
    put(host);
  }
  ~Array() { device().memory().deallocate(data_, bytes_, MemoryUse::workspace); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;

  MutView mut() const { return {data_, {count_}, dtype_of<T>, device().memory().device()}; }
  void put(const std::vector<T>& host) const {
    ExecContext& exec = device().exec();
    exec.kernels().transfer.upload(exec, View(host.data(), {count_}, dtype_of<T>), mut());
  }
  std::vector<T> get() const {
    std::vector<T> host(static_cast<std::size_t>(count_));
    ExecContext& exec = device().exec();
    exec.kernels().transfer.download(exec, mut(), MutView(host.data(), {count_}, dtype_of<T>));
    return host;
  }

 private:
  std::int64_t count_;
  std::size_t bytes_;
  void* data_;
};

const std::int64_t counts[] = {1, 17, 4096, 70001};

template <class T>
class DeviceMemory : public testing::Test {
 protected:
  const std::unique_ptr<Communicator> comm = device_world();
  const int ranks = comm->size();
  const int rank = comm->rank();
};
using Types = testing::Types<float, bf16, double, std::int64_t, std::uint8_t>;
TYPED_TEST_SUITE(DeviceMemory, Types);

TYPED_TEST(DeviceMemory, AllReduceSums) {
  using T = TypeParam;
  for (const auto count : counts) {
    const Array<T> x(values<T>(this->rank, count));
    this->comm->all_reduce(x.mut()).wait();
    ASSERT_EQ(x.get(), summed<T>(0, this->ranks, count)) << count;
  }
}

TYPED_TEST(DeviceMemory, AllGatherPutsRanksInOrder) {
  using T = TypeParam;
  for (const auto count : counts) {
    const Array<T> own(values<T>(this->rank, count));
    const Array<T> all(values<T>(99, count * this->ranks)), in_place(values<T>(99, count * this->ranks));
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
  using T = TypeParam;
  for (const auto count : counts) {
    const auto host = values<T>(this->rank, count * this->ranks);
    const auto expected = summed<T>(0, this->ranks, count, this->rank * count);
    const Array<T> all(host), own(values<T>(99, count));
    this->comm->reduce_scatter(all.mut(), own.mut()).wait();
    ASSERT_EQ(own.get(), expected) << count;
    ASSERT_EQ(all.get(), host) << "the input was written to";
    this->comm->reduce_scatter(all.mut(), all.mut().slice(this->rank * count, (this->rank + 1) * count)).wait();
    const auto in_place = all.get();
    ASSERT_TRUE(std::equal(expected.begin(), expected.end(), in_place.begin() + this->rank * count)) << count;
  }
}

TYPED_TEST(DeviceMemory, BroadcastGivesTheRootsValues) {
  using T = TypeParam;
  for (int root = 0; root < this->ranks; ++root) {
    const Array<T> x(values<T>(this->rank, 5003));
    this->comm->broadcast(x.mut(), root).wait();
    ASSERT_EQ(x.get(), values<T>(root, 5003)) << root;
  }
}

TYPED_TEST(DeviceMemory, AllToAllTransposesParts) {
  using T = TypeParam;
  for (const auto count : counts) {
    const Array<T> input(values<T>(this->rank, count * this->ranks)), output(values<T>(99, count * this->ranks));
    this->comm->all_to_all(input.mut(), output.mut()).wait();
    std::vector<T> expected;
    for (int from = 0; from < this->ranks; ++from)
      for (const T x : values<T>(from, count, this->rank * count)) expected.push_back(x);
    ASSERT_EQ(output.get(), expected) << count;
  }
}

TYPED_TEST(DeviceMemory, ExclusiveScanSumsLowerRanks) {
  using T = TypeParam;
  for (const auto count : counts) {
    const Array<T> input(values<T>(this->rank, count)), output(values<T>(99, count));
    this->comm->exclusive_scan(input.mut(), output.mut()).wait();
    ASSERT_EQ(output.get(), summed<T>(0, this->rank, count)) << count;
  }
}

TYPED_TEST(DeviceMemory, MessagesArriveInOrder) {
  using T = TypeParam;
  if (this->ranks == 1) return;
  const int right = (this->rank + 1) % this->ranks, left = (this->rank + this->ranks - 1) % this->ranks;
  for (const auto count : counts) {
    const Array<T> first(values<T>(this->rank, count)), second(values<T>(this->rank, count, 5));
    const Array<T> a(values<T>(99, count)), b(values<T>(99, count));
    Work works[] = {this->comm->recv(a.mut(), left), this->comm->send(first.mut(), right),
                    this->comm->recv(b.mut(), left), this->comm->send(second.mut(), right)};
    for (Work& work : works) work.wait();
    ASSERT_EQ(a.get(), values<T>(left, count));
    ASSERT_EQ(b.get(), values<T>(left, count, 5));
  }
}

TYPED_TEST(DeviceMemory, SendRecvPassesUnequalPartsRoundTheRing) {
  using T = TypeParam;
  if (this->ranks == 1) return;
  const int right = (this->rank + 1) % this->ranks, left = (this->rank + this->ranks - 1) % this->ranks;
  for (const auto count : counts) {
    const Array<T> sent(values<T>(this->rank, count + this->rank)), got(values<T>(99, count + left));
    this->comm->send_recv(sent.mut(), right, got.mut(), left).wait();
    ASSERT_EQ(got.get(), values<T>(left, count + left)) << count;
  }
}

TEST(DeviceMemoryGroups, ManyGroupsAndHostOperationsKeepOneOrder) {
  const auto comm = device_world(Priority::bulk);
  const auto other = comm->split(0, -comm->rank(), "other", Priority::bulk);
  const int ranks = comm->size();
  // More than the MPI transport has tags for at a time, without waiting in between.
  constexpr int rounds = 100;
  constexpr std::int64_t count = 20000;
  std::vector<std::unique_ptr<Array<float>>> arrays;
  std::vector<std::vector<float>> hosts(rounds, std::vector<float>(count, static_cast<float>(comm->rank())));
  std::vector<Work> works;
  for (int round = 0; round < rounds; ++round) {
    arrays.push_back(std::make_unique<Array<float>>(values<float>(comm->rank(), count, round)));
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

TEST(DeviceMemoryGroups, AMeshOverThemReachesTheDeviceOnEveryAxis) {
  const auto comm = device_world();
  Mesh mesh(*comm, comm_log(), {});
  for (const auto axis : {Axis::dp, Axis::tp}) {
    const Array<double> x(values<double>(comm->rank(), 100)), y(values<double>(99, 100 * mesh.size(axis)));
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

TEST(DeviceMemoryGroups, TheLedgerCountsEachCollectiveOnce) {
  const auto comm =
      world().split(0, world().rank(), "ledger", Priority::urgent,
                    {&device(), [](std::unique_ptr<Transport> transport) {
                       return make_staged_transport(std::move(transport), std::make_shared<DeviceStaging>(device()));
                     }});
  if (comm->size() == 1) return;
  const Array<float> x(values<float>(0, 1000));
  for (int i = 0; i < 3; ++i) comm->all_reduce(x.mut()).wait();
  const auto totals = comm_log().totals();
  const auto found = std::ranges::find_if(totals, [](const CollectiveTotals& row) { return row.group == "ledger"; });
  ASSERT_NE(found, totals.end());
  EXPECT_EQ(found->count, 3u);
  const auto ranks = static_cast<std::uint64_t>(comm->size());
  EXPECT_EQ(found->wire_bytes, 3 * (2 * 4000 * (ranks - 1) / ranks));
}

TEST(DeviceMemoryGroups, WhatIsInFlightEndsBeforeItsGroupGoes) {
  const Array<float> x(values<float>(world().rank(), 70001));
  for (int i = 0; i < 5; ++i) {
    x.put(values<float>(world().rank(), 70001));
    static_cast<void>(device_world()->all_reduce(x.mut()));
    ASSERT_EQ(x.get(), summed<float>(0, world().size(), 70001));
  }
}

TEST(DeviceMemoryGroups, AGroupWithoutTheDeviceRefusesItsMemory) {
  const Array<float> x(values<float>(0, 10));
  EXPECT_THROW(static_cast<void>(world().all_reduce(x.mut())), Error);
  const auto comm = device_world();
  std::vector<float> host(static_cast<std::size_t>(10 * comm->size()));
  EXPECT_THROW(static_cast<void>(comm->all_gather(x.mut(), MutView(host.data(), {10 * comm->size()}, DType::f32))),
               Error);
}

}  // namespace
}  // namespace weft::test
