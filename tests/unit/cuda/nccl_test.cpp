// NCCL's groups over a library that computes in host memory, one thread a rank.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <mutex>
#include <thread>

#include "core/base/error.hpp"
#include "core/cuda/nccl/group.hpp"
#include "core/kernels/table.hpp"
#include "core/tensor/caching_allocator.hpp"
#include "tests/unit/cuda/fake_nccl.hpp"

namespace weft::cuda {
namespace {

using testing::HasSubstr;

std::shared_ptr<const Nccl> api() {
  static const auto opened = std::make_shared<const Nccl>(open_nccl({}, WEFT_FAKE_NCCL));
  return opened;
}

const FakeNccl& fake() {
  static const Library library("the fake", std::vector<std::string_view>{WEFT_FAKE_NCCL}, {});
  return *reinterpret_cast<const FakeNccl*>(library.function<void()>("fake_nccl"));
}

/// On host memory, without a stream.
ExecContext& queue() {
  static const KernelTable none;
  static const auto memory = make_caching_allocator(make_host_memory());
  static thread_local ExecContext exec(none, *memory, 1);
  return exec;
}

LinkId make_id() { return NcclLinks(api(), nullptr).make_id(); }

constexpr double patience = 60;

/// Runs `work` on each rank of a group of `size`; errors by rank.
std::vector<std::string> on_ranks(int size, const std::function<void(NcclGroup&, int)>& work) {
  const LinkId id = make_id();
  std::vector<std::string> errors(static_cast<std::size_t>(size));
  std::vector<std::thread> threads;
  for (int rank = 0; rank < size; ++rank)
    threads.emplace_back([&, rank] {
      try {
        NcclGroup group(api(), id, {rank, size, "dp", "node7"}, patience, nullptr);
        work(group, rank);
      } catch (const Error& error) {
        errors[static_cast<std::size_t>(rank)] = error.what();
      }
    });
  for (auto& thread : threads) thread.join();
  return errors;
}

template <class T>
MutView view(std::vector<T>& x) {
  return MutView(x.data(), {static_cast<std::int64_t>(x.size())}, dtype_of<T>);
}

class NcclGroups : public testing::TestWithParam<int> {
 protected:
  void run(const std::function<void(NcclGroup&, int)>& work) const {
    for (const auto& error : on_ranks(size, work)) EXPECT_EQ(error, "");
    EXPECT_EQ(fake().alive(), 0) << "a communicator was not destroyed";
  }
  const int size = GetParam();
};
INSTANTIATE_TEST_SUITE_P(Ranks, NcclGroups, testing::Values(1, 2, 3, 4));

TEST_P(NcclGroups, Reduce) {
  run([&](NcclGroup& group, int rank) {
    std::vector<float> x = {1.0f, static_cast<float>(rank)};
    group.all_reduce(queue(), view(x), ReduceOp::sum);
    EXPECT_EQ(x, (std::vector<float>{static_cast<float>(size), static_cast<float>(size * (size - 1) / 2)}));
    std::vector<std::int64_t> y = {rank, -rank};
    group.all_reduce(queue(), view(y), ReduceOp::max);
    EXPECT_EQ(y, (std::vector<std::int64_t>{size - 1, 0}));
    group.all_reduce(queue(), view(y), ReduceOp::min);
    std::vector<double> all(static_cast<std::size_t>(size) * 3), own(3);
    for (std::size_t i = 0; i < all.size(); ++i) all[i] = static_cast<double>(i) + rank;
    group.reduce_scatter(queue(), view(all), view(own), ReduceOp::sum);
    for (int i = 0; i < 3; ++i)
      EXPECT_EQ(own[static_cast<std::size_t>(i)], size * (rank * 3 + i) + size * (size - 1) / 2.0);
  });
}

TEST_P(NcclGroups, MoveEveryDtypeWhole) {
  run([&](NcclGroup& group, int rank) {
    std::vector<bf16> own = {bf16(static_cast<float>(rank)), bf16(0.5f)};
    std::vector<bf16> all(static_cast<std::size_t>(size) * 2);
    group.all_gather(queue(), view(own), view(all));
    for (int from = 0; from < size; ++from)
      EXPECT_EQ(static_cast<float>(all[static_cast<std::size_t>(from) * 2]), static_cast<float>(from));
    std::vector<std::int64_t> x = {rank, 7};
    group.broadcast(queue(), view(x), size - 1);
    EXPECT_EQ(x, (std::vector<std::int64_t>{size - 1, 7}));
    std::vector<float> parts(static_cast<std::size_t>(size)), got(parts.size());
    for (int to = 0; to < size; ++to) parts[static_cast<std::size_t>(to)] = static_cast<float>(10 * rank + to);
    group.all_to_all(queue(), view(parts), view(got));
    for (int from = 0; from < size; ++from)
      EXPECT_EQ(got[static_cast<std::size_t>(from)], static_cast<float>(10 * from + rank));
  });
}

TEST_P(NcclGroups, ExchangeMessagesAsOneOperation) {
  run([&](NcclGroup& group, int rank) {
    const int right = (rank + 1) % size, left = (rank + size - 1) % size;
    std::vector<float> out(static_cast<std::size_t>(rank) + 2, static_cast<float>(rank));
    std::vector<float> in(static_cast<std::size_t>(left) + 2, -1);
    const LinkMessage messages[] = {{right, view(out), {}}, {left, {}, view(in)}};
    group.exchange(queue(), messages);
    EXPECT_EQ(in, std::vector<float>(in.size(), static_cast<float>(left)));
  });
}

TEST(Nccl, ARankThatWaitsInVainNamesItselfAndItsGroup) {
  try {
    const NcclGroup group(api(), make_id(), {1, 3, "tp", "node7"}, 0.05, nullptr);
    FAIL() << "a group of one of three ranks was made";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("rank 1 of 3 in group tp on host node7"));
    EXPECT_THAT(error.what(), HasSubstr("did not come within 0.05 s"));
  }
}

void expect_broken(const std::function<void(NcclGroup&)>& meet, const char* call) {
  fake().fail_rank(0);
  const int aborted = fake().aborted();
  const auto errors = on_ranks(1, [&](NcclGroup& group, int) {
    try {
      meet(group);
    } catch (const Error&) {
      std::vector<float> x = {1};
      EXPECT_EQ(fake().aborted(), aborted + 1);
      EXPECT_THROW(group.all_reduce(queue(), view(x), ReduceOp::sum), Error);
      EXPECT_THROW(group.poll(), Error);
      throw;
    }
  });
  fake().fail_rank(-1);
  EXPECT_THAT(errors[0], HasSubstr(fmt::format("rank 0 of 1 in group dp on host node7: {}: remote process", call)));
  EXPECT_EQ(fake().alive(), 0);
}

TEST(Nccl, AnErrorAfterACallReturnedIsFoundByPollingAndAbortsTheGroup) {
  expect_broken(
      [](NcclGroup& group) {
        std::vector<float> x = {1};
        group.poll();
        group.all_reduce(queue(), view(x), ReduceOp::sum);
        group.poll();
      },
      "a collective");
}

TEST(Nccl, AnErrorOfACallAbortsTheGroup) {
  expect_broken(
      [](NcclGroup& group) {
        std::vector<float> x = {1}, y = {2};
        group.all_gather(queue(), view(x), view(y));
      },
      "ncclAllGather");
}

/// What each call of a group of one rank says when NCCL refuses it so.
std::string refusal_of(const std::string& call, int status) {
  fake().refuse(call.c_str(), status);
  std::string said;
  try {
    NcclGroup group(api(), make_id(), {0, 1, "dp", "node7"}, patience, nullptr);
    std::vector<float> x = {1}, y = {2};
    group.all_reduce(queue(), view(x), ReduceOp::sum);
    group.all_gather(queue(), view(x), view(y));
    group.reduce_scatter(queue(), view(x), view(y), ReduceOp::sum);
    group.broadcast(queue(), view(x), 0);
    group.all_to_all(queue(), view(x), view(y));
    group.poll();
  } catch (const Error& error) {
    said = error.what();
  }
  fake().refuse(nullptr, 0);
  return said;
}

TEST(Nccl, EveryErrorOfEveryCallIsSaidWithTheCallAndItsReason) {
  const std::vector<std::string> reasons = {"unhandled cuda error", "unhandled system error", "internal error",
                                            "invalid argument",     "invalid usage",          "remote process exited",
                                            "unknown result code"};
  for (const std::string call :
       {"ncclGetUniqueId", "ncclCommInitRankConfig", "ncclAllReduce", "ncclAllGather", "ncclReduceScatter",
        "ncclBroadcast", "ncclGroupStart", "ncclSend", "ncclRecv", "ncclGroupEnd", "ncclCommGetAsyncError"})
    for (std::size_t i = 0; i < reasons.size(); ++i) {
      const int aborted = fake().aborted();
      const std::string said = refusal_of(call, static_cast<int>(i) + 1);
      EXPECT_THAT(said, HasSubstr(reasons[i])) << call;
      const bool in_a_group = call != "ncclGetUniqueId";
      if (in_a_group) {
        EXPECT_THAT(said, HasSubstr("rank 0 of 1 in group dp on host node7")) << call;
      }
      const bool later = call == "ncclCommGetAsyncError", together = call == "ncclGroupEnd";
      EXPECT_THAT(said, HasSubstr(later ? "a collective" : together ? "all_to_all" : call));
      const bool was_joined = in_a_group && call != "ncclCommInitRankConfig";
      EXPECT_EQ(fake().aborted(), aborted + (was_joined ? 1 : 0)) << call;
      EXPECT_EQ(fake().alive(), 0) << call;
    }
}

TEST(Nccl, SumsOfBf16AreRefusedBecauseNcclRoundsAtEachHop) {
  const auto errors = on_ranks(1, [](NcclGroup& group, int) {
    std::vector<bf16> x(4);
    group.all_reduce(queue(), view(x), ReduceOp::sum);
  });
  EXPECT_THAT(errors[0], HasSubstr("bf16"));
}

TEST(Nccl, AMissingLibraryIsNamedWithWhatWasTried) {
  const std::vector<std::filesystem::path> folders = {"/nowhere/nvidia/nccl/lib"};
  try {
    open_nccl(folders, "libnccl.so.none");
    FAIL() << "a library that does not exist was opened";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), HasSubstr("NCCL cannot be opened"));
    EXPECT_THAT(error.what(), HasSubstr("/nowhere/nvidia/nccl/lib/libnccl.so.none: not there"));
  }
}

}  // namespace
}  // namespace weft::cuda
