// Collectives on the memory of a device that does nothing before it must, over a transport of host memory.
#include "parallel/comm/staged_transport.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <condition_variable>
#include <mutex>
#include <vector>

#include "core/base/clock.hpp"
#include "late_device.hpp"
#include "parallel/comm/communicator.hpp"

namespace weft::test {
namespace {

using testing::ElementsAre;

/// Two ranks of which the other always holds the same values; reaches host memory alone. What it was given waits where
/// `holds` is set.
class HostEcho final : public Transport {
 public:
  int rank() const override { return 0; }
  const std::vector<int>& members() const override { return members_; }
  bool serves(DeviceId device) const override { return device.kind == DeviceKind::cpu; }
  int free_context() const override { return 0; }
  std::unique_ptr<Transport> subgroup(const std::vector<int>&, int, const std::string&) override { return nullptr; }
  void start(std::shared_ptr<Operation> operation) override {
    const std::lock_guard lock(mutex_);
    EXPECT_TRUE(!operation->what().input || serves(operation->what().input.device));
    EXPECT_TRUE(!operation->what().output || serves(operation->what().output.device));
    started_.push_back(operation->what().sequence);
    if (holds)
      held_.push_back(std::move(operation));
    else
      end(*operation);
    came_.notify_all();
  }
  /// Blocks until `count` were started.
  std::vector<std::uint64_t> started(std::size_t count) {
    std::unique_lock lock(mutex_);
    EXPECT_TRUE(came_.wait_for(lock, std::chrono::seconds(60), [&] { return started_.size() >= count; }));
    return started_;
  }
  Operation& held(std::size_t index) { return *held_.at(index); }
  void release(std::exception_ptr error = nullptr) {
    std::vector<std::shared_ptr<Operation>> held;
    {
      const std::lock_guard lock(mutex_);
      held.swap(held_);
    }
    for (const auto& operation : held)
      if (error)
        operation->finish(error);
      else
        end(*operation);
  }
  bool holds = false;

 private:
  static void end(Operation& operation) {
    const Collective& what = operation.what();
    auto* x = static_cast<float*>(what.output.data);
    if (what.kind == CollectiveKind::all_reduce) std::for_each_n(x, what.output.numel(), [](float& y) { y *= 2; });
    if (what.kind == CollectiveKind::recv) std::fill_n(x, what.output.numel(), 7.0f);
    operation.finish();
  }

  std::vector<int> members_ = {0, 1};
  std::mutex mutex_;
  std::condition_variable came_;
  std::vector<std::uint64_t> started_;
  std::vector<std::shared_ptr<Operation>> held_;
};

class Staged : public testing::Test {
 protected:
  Staged() {
    auto echo = std::make_unique<HostEcho>();
    network_ = echo.get();
    comm_ = std::make_unique<Communicator>(
        make_staged_transport(std::move(echo), std::make_shared<DeviceStaging>(device_)), log_, "dp", Priority::bulk);
  }
  ~Staged() override {
    for (float* data : arrays_) device_.memory().deallocate(data, bytes, MemoryUse::workspace);
  }

  /// Four elements in device memory.
  float* array(float value) {
    auto* data = static_cast<float*>(device_.memory().allocate(bytes, MemoryUse::workspace));
    std::fill_n(data, 4, value);
    arrays_.push_back(data);
    return data;
  }
  MutView view(float* data) { return {data, {4}, DType::f32, device_.memory().device()}; }
  LateQueue& queue() { return late(device_.exec()); }

  static constexpr std::size_t bytes = 4 * sizeof(float);
  LateDevice device_;
  CommLog log_;
  HostEcho* network_;
  std::vector<float*> arrays_;
  std::unique_ptr<Communicator> comm_;
};

TEST_F(Staged, SendsWhatTheQueueComputesBefore) {
  float* x = array(1);
  queue().give([x] { std::fill_n(x, 4, 3.0f); });
  comm_->all_reduce(view(x)).wait();
  EXPECT_EQ(std::vector<float>(x, x + 4), std::vector<float>(4, 6.0f));
}

TEST_F(Staged, OverwritesNothingThatTheQueueReadsBefore) {
  float *x = array(1), *copy = array(0);
  queue().give([x, copy] { std::copy_n(x, 4, copy); });
  comm_->recv(view(x), 1).wait();
  synchronize(device_);
  EXPECT_EQ(x[3], 7);
  EXPECT_EQ(copy[3], 1);
}

TEST_F(Staged, StartsInProgramOrderWhereverMemoryLies) {
  std::vector<float> host(4, 1);
  network_->holds = true;
  std::vector<Work> works;
  for (int i = 0; i < 6; ++i)
    works.push_back(comm_->all_reduce(i % 2 ? MutView(host.data(), {4}, DType::f32) : view(array(1))));
  EXPECT_THAT(network_->started(6), ElementsAre(0, 1, 2, 3, 4, 5));
  network_->release();
  for (Work& work : works) work.wait();
  EXPECT_EQ(host[0], 8);
}

TEST_F(Staged, TellsTheInnerTransportThatSomebodyWaits) {
  network_->holds = true;
  Work work = comm_->all_reduce(view(array(1)));
  network_->started(1);
  EXPECT_FALSE(network_->held(0).awaited());
  EXPECT_FALSE(work.wait_for(0.01));
  while (!network_->held(0).awaited()) std::this_thread::yield();
  network_->release();
  work.wait();
}

TEST_F(Staged, TheLogSeesTheProgressOfTheInnerOperation) {
  network_->holds = true;
  Work work = comm_->all_reduce(view(array(1)));
  network_->started(1);
  ASSERT_EQ(log_.activity().active.size(), 1u);
  const double begun = log_.activity().active[0].progress;
  while (seconds_now() <= begun) std::this_thread::yield();
  log_.progressed(network_->held(0));
  EXPECT_GT(log_.activity().active.at(0).progress, begun);
  network_->release();
  work.wait();
  EXPECT_TRUE(log_.activity().active.empty());
  EXPECT_EQ(log_.totals().at(0).count, 1u);
}

TEST_F(Staged, AFailureReachesWhoeverWaits) {
  network_->holds = true;
  float* x = array(1);
  Work failing = comm_->all_reduce(view(x));
  network_->started(1);
  network_->release(std::make_exception_ptr(Error("the cable is cut")));
  EXPECT_THROW(failing.wait(), Error);
  EXPECT_EQ(x[0], 1);
  network_->holds = false;
  comm_->all_reduce(view(x)).wait();
  EXPECT_EQ(x[0], 2);
}

TEST_F(Staged, ABrokenDeviceEndsItsCollectives) {
  device_.broken = true;
  Work work = comm_->all_reduce(view(array(1)));
  EXPECT_THROW(work.wait(), Error);
  EXPECT_TRUE(log_.activity().active.empty());
}

TEST_F(Staged, WhatWasStartedEndsBeforeTheGroupGoes) {
  float* x = array(1);
  std::weak_ptr<int> kept;
  {
    auto owner = std::make_shared<int>(0);
    kept = owner;
    static_cast<void>(comm_->all_reduce(view(x), {.keep = std::move(owner)}));
  }
  comm_.reset();
  EXPECT_EQ(x[0], 2);
  EXPECT_TRUE(kept.expired());
  EXPECT_EQ(device_.host_memory().stats().total_live, 0u);
}

TEST_F(Staged, ASteadyStreamTakesNoNewMemory) {
  float* x = array(0);
  comm_->all_reduce(view(x)).wait();
  const std::size_t peak = device_.host_memory().stats().total_peak;
  for (int i = 0; i < 20; ++i) comm_->all_reduce(view(x)).wait();
  EXPECT_EQ(device_.host_memory().stats().total_peak, peak);
}

}  // namespace
}  // namespace weft::test
