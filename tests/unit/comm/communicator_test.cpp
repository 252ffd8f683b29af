// The face without MPI: groups of one rank, the test plan, and the accounts that CommLog keeps.
#include "parallel/comm/communicator.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <condition_variable>
#include <limits>
#include <mutex>

#include "core/base/clock.hpp"
#include "parallel/comm/test_transport.hpp"
#include "parallel/mesh.hpp"

namespace weft::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

MutView mut(std::vector<float>& x) { return {x.data(), {static_cast<std::int64_t>(x.size())}, DType::f32}; }

/// Two ranks of which the other always holds the same values; collectives end at once or when release() is called.
class Echo : public Transport {
 public:
  enum class Ends : bool { at_once, on_release };
  explicit Echo(Ends ends = Ends::at_once) : ends_(ends) {}
  int rank() const override { return 0; }
  const std::vector<int>& members() const override { return members_; }
  bool serves(DeviceId) const override { return true; }
  int free_context() const override { return 0; }
  std::unique_ptr<Transport> subgroup(const std::vector<int>&, int, const std::string&) override { return nullptr; }
  void start(std::shared_ptr<Operation> operation) override {
    ++started;
    const auto& what = operation->what();
    if (what.kind == CollectiveKind::all_reduce) {
      auto* x = static_cast<float*>(what.output.data);
      for (std::int64_t i = 0; i < what.output.numel(); ++i) x[i] *= 2;
    }
    if (ends_ == Ends::at_once)
      operation->finish();
    else
      held_.push_back(std::move(operation));
  }
  void release() {
    for (auto& operation : std::exchange(held_, {})) operation->finish();
  }
  int started = 0;

 private:
  std::vector<int> members_ = {0, 1};
  Ends ends_;
  std::vector<std::shared_ptr<Operation>> held_;
};

Communicator with_plan(CommLog& log, std::string_view plan) {
  return Communicator(make_test_transport(std::make_unique<Echo>(), parse_test_plan(plan), "dp"), log, "dp",
                      Priority::bulk);
}

TEST(SelfCommunicator, DoesWhatOneRankDoes) {
  CommLog log;
  const auto self = make_self_communicator(log);
  std::vector<float> x = {1, 2, 3}, y(3), z(3, 9), w(3, 9);
  self->all_reduce(mut(x)).wait();
  self->all_gather(mut(x), mut(y)).wait();
  EXPECT_EQ(y, x);
  y.assign(3, 0);
  self->reduce_scatter(mut(x), mut(y)).wait();
  EXPECT_EQ(y, x);
  y.assign(3, 0);
  self->all_to_all(mut(x), mut(y)).wait();
  EXPECT_EQ(y, x);
  self->broadcast(mut(x), 0).wait();
  self->exclusive_scan(mut(x), mut(z)).wait();
  EXPECT_THAT(z, ElementsAre(0, 0, 0));
  self->exclusive_scan(mut(x), mut(w), {.op = ReduceOp::max}).wait();
  EXPECT_EQ(w[0], -std::numeric_limits<float>::infinity());
  self->barrier().wait();
  EXPECT_THAT(x, ElementsAre(1, 2, 3));
  EXPECT_THROW((void)self->send(mut(x), 0), Error);
  EXPECT_EQ(self->split(5, 0, "part")->size(), 1);
  EXPECT_EQ(log.wire_bytes(), 0u);
  Mesh mesh(*self, log, {});
  EXPECT_EQ(mesh.comm({Axis::dp, Axis::tp}).size(), 1);
  EXPECT_THROW(Mesh(*self, log, {.tp = 2}), UserError);
}

TEST(Face, SendsNothingForZeroElements) {
  CommLog log;
  auto echo = std::make_unique<Echo>();
  const Echo& seen = *echo;
  Communicator comm(std::move(echo), log, "dp", Priority::bulk);
  std::vector<float> none;
  comm.all_reduce(mut(none)).wait();
  comm.all_gather(mut(none), mut(none)).wait();
  EXPECT_EQ(seen.started, 0);
}

TEST(Log, KnowsWhatIsInFlightAndChargesWaits) {
  CommLog log;
  auto echo = std::make_unique<Echo>(Echo::Ends::on_release);
  Echo& network = *echo;
  Communicator comm(std::move(echo), log, "dp", Priority::bulk);
  log.set_step(4);
  log.set_phase("backward", 30);
  std::vector<float> x(100);
  auto work = comm.all_reduce(mut(x));
  EXPECT_FALSE(work.done());
  EXPECT_FALSE(work.wait_for(0.02));
  const Activity during = log.activity();
  EXPECT_EQ(during.step, 4);
  EXPECT_EQ(during.phase, "backward");
  EXPECT_EQ(during.phase_allowed, 30);
  ASSERT_EQ(during.active.size(), 1u);
  EXPECT_EQ(during.active[0].kind, CollectiveKind::all_reduce);
  EXPECT_EQ(during.active[0].group->name, "dp");
  EXPECT_TRUE(during.active[0].awaited);
  network.release();
  work.wait();
  work.wait();
  EXPECT_TRUE(log.activity().active.empty());
  const auto totals = log.totals();
  ASSERT_EQ(totals.size(), 1u);
  EXPECT_EQ(totals[0].count, 1u);
  EXPECT_EQ(totals[0].wire_bytes, 400u);
  EXPECT_GE(totals[0].exposed_seconds, 0.02);
  EXPECT_EQ(totals[0].exposed_seconds, log.exposed_seconds());
  EXPECT_GE(totals[0].total_seconds, totals[0].exposed_seconds);
}

TEST(TestPlan, ScalesTheChosenOperations) {
  CommLog log;
  auto comm = with_plan(log, "all_reduce:dp:first=1,count=1,scale=3;all_reduce:tp:scale=100");
  std::vector<float> x = {1};
  for (int i = 0; i < 3; ++i) comm.all_reduce(mut(x)).wait();
  EXPECT_EQ(x[0], 8 * 3);
}

TEST(TestPlan, BreaksOnlyTheChosenRank) {
  CommLog log;
  auto other = with_plan(log, "any:any:rank=1,fail");
  auto chosen = with_plan(log, "any:any:rank=0,fail");
  std::vector<float> x = {1};
  EXPECT_NO_THROW(other.all_reduce(mut(x)).wait());
  auto work = chosen.all_reduce(mut(x));
  EXPECT_TRUE(work.done());
  EXPECT_THROW(work.wait(), Error);
}

TEST(TestPlan, SkipsCorruptsAndHangs) {
  CommLog log;
  auto comm = with_plan(log, "all_reduce:dp:count=1,skip;all_reduce:dp:first=1,count=1,corrupt;broadcast:any:hang");
  std::vector<float> x = {1};
  comm.all_reduce(mut(x)).wait();
  EXPECT_EQ(x[0], 1);
  comm.all_reduce(mut(x)).wait();
  EXPECT_NE(x[0], 2);
  EXPECT_FALSE(comm.broadcast(mut(x), 0).wait_for(0.05));
}

TEST(TestPlan, DelaysTheEndWithoutBlockingTheStart) {
  CommLog log;
  auto comm = with_plan(log, "bandwidth=1e6,latency=0.01;all_gather:dp:delay=0.2");
  std::vector<float> x(50000), y(100000);
  const double begun = seconds_now();
  // 200 kB sent by each of two ranks: 0.2 s each on one link.
  auto first = comm.all_reduce(mut(x)), second = comm.all_reduce(mut(x));
  EXPECT_FALSE(first.done());
  first.wait();
  EXPECT_GE(seconds_now() - begun, 0.21);
  EXPECT_FALSE(second.done());
  second.wait();
  EXPECT_GE(seconds_now() - begun, 0.41);
  const double gather_begun = seconds_now();
  comm.all_gather(mut(x), mut(y)).wait();
  EXPECT_GE(seconds_now() - gather_begun, 0.2 + 0.21);
}

TEST(TestPlan, LetsSmallOperationsPassLargeOnes) {
  CommLog log;
  auto comm = with_plan(log, "bandwidth=1e6");
  std::vector<float> large(2000000), small(1);
  auto slow = comm.all_reduce(mut(large));
  comm.all_reduce(mut(small)).wait();
  EXPECT_FALSE(slow.done());
}

TEST(TestPlan, PassesUrgentOperationsOneAfterAnother) {
  CommLog log;
  auto comm = with_plan(log, "bandwidth=4e5");
  std::vector<float> x(10000), y(10000);  // 40 kB sent by each of two ranks: urgent, 0.1 s each
  const double begun = seconds_now();
  auto first = comm.all_reduce(mut(x)), second = comm.all_reduce(mut(y));
  second.wait();
  EXPECT_GE(seconds_now() - begun, 0.2);
  first.wait();
}

TEST(TestPlan, ReordersEnds) {
  CommLog log;
  auto comm = with_plan(log, "all_reduce:dp:count=1,reorder");
  std::vector<float> x = {1}, y = {1};
  auto first = comm.all_reduce(mut(x));
  EXPECT_FALSE(first.done());
  auto second = comm.all_reduce(mut(y));
  second.wait();
  first.wait();
  auto only = with_plan(log, "all_reduce:dp:reorder");
  only.all_reduce(mut(x)).wait();
}

TEST(TestPlan, RefusesWhatItDoesNotKnow) {
  for (const char* plan : {"bandwidth=fast", "speed=3", "all_reduce:dp", "reduce:dp:fail", "all_reduce:dp:first=1",
                           "all_reduce:dp:explode", "all_reduce:dp:scale=1x"})
    EXPECT_THROW(parse_test_plan(plan), UserError) << plan;
  EXPECT_TRUE(parse_test_plan("").empty());
  EXPECT_EQ(parse_test_plan("bandwidth=2.5e9").network.bytes_per_second, 2.5e9);
}

}  // namespace
}  // namespace weft::test
