// The GPU's own links in a group of one rank: that NCCL is called as it wants to be, eagerly and in a recorded step.
#include <gtest/gtest.h>

#include "core/kernels/table.hpp"
#include "tests/gpu/device_under_test.hpp"

namespace weft::test {
namespace {

/// f32 in the device's memory.
class Array {
 public:
  Array(Device& device, std::int64_t count, float value)
      : device_(device), count_(count), data_(device.memory().allocate(bytes(), MemoryUse::workspace)) {
    device.exec().kernels().elementwise.fill(device.exec(), value, mut());
  }
  ~Array() { device_.memory().deallocate(data_, bytes(), MemoryUse::workspace); }
  Array(const Array&) = delete;
  Array& operator=(const Array&) = delete;
  MutView mut() const { return {data_, {count_}, DType::f32, device_.memory().device()}; }
  std::vector<float> get() const {
    std::vector<float> host(static_cast<std::size_t>(count_));
    ExecContext& exec = device_.exec();
    exec.kernels().transfer.download(exec, mut(), MutView(host.data(), {count_}, DType::f32));
    return host;
  }

 private:
  std::size_t bytes() const { return static_cast<std::size_t>(count_) * sizeof(float); }
  Device& device_;
  std::int64_t count_;
  void* data_;
};

class Links : public testing::Test {
 protected:
  void SetUp() override {
    DeviceLinks& links = device->links();
    group = links.join(links.make_id(), {0, 1, "alone", "here"}, 60);
  }
  /// Runs on another queue between two marks, as the linked transport does.
  void beside(const std::function<void(ExecContext&)>& work) {
    begun->record(device->exec());
    begun->hold(*queue);
    work(*queue);
    ended->record(*queue);
    ended->hold(device->exec());
  }

  const std::unique_ptr<Device> device = open_gpu();
  const std::unique_ptr<ExecContext> queue = device->make_queue();
  const std::unique_ptr<Event> begun = device->make_event(), ended = device->make_event();
  std::unique_ptr<DeviceGroup> group;
};

TEST_F(Links, CarryEveryCollective) {
  const std::int64_t count = 100003;
  const Array x(*device, count, 3), y(*device, count, 0);
  const std::vector<float> threes(static_cast<std::size_t>(count), 3);
  beside([&](ExecContext& exec) {
    group->all_reduce(exec, x.mut(), ReduceOp::sum);
    group->broadcast(exec, x.mut(), 0);
    group->all_gather(exec, x.mut(), y.mut());
  });
  EXPECT_EQ(x.get(), threes);
  EXPECT_EQ(y.get(), threes);
  for (const bool scattered : {true, false}) {
    const Array z(*device, count, 0);
    beside([&](ExecContext& exec) {
      if (scattered)
        group->reduce_scatter(exec, x.mut(), z.mut(), ReduceOp::sum);
      else
        group->all_to_all(exec, x.mut(), z.mut());
    });
    EXPECT_EQ(z.get(), threes) << scattered;
  }
  const Array z(*device, count, 0);
  const LinkMessage messages[] = {{0, x.mut(), {}}, {0, {}, z.mut()}};
  beside([&](ExecContext& exec) { group->exchange(exec, messages); });
  EXPECT_EQ(z.get(), threes);
  group->poll();
}

TEST_F(Links, ArePartOfARecordedStepWhoseReplaysTheHostCanCount) {
  const Array x(*device, 1000, 1), ones(*device, 1000, 1);
  auto* counter = static_cast<std::int64_t*>(device->host_memory().allocate(64, MemoryUse::communication));
  *counter = 0;
  const auto step = [&] {
    beside([&](ExecContext& exec) {
      group->all_reduce(exec, x.mut(), ReduceOp::sum);
      exec.kernels().collective.count(exec, MutView(counter, {1}, DType::i64));
    });
    device->exec().kernels().elementwise.add(device->exec(), x.mut(), ones.mut(), x.mut());
  };
  step();
  {
    const std::unique_ptr<WorkGraph> graph = device->capture(step);
    for (int i = 0; i < 3; ++i) graph->launch();
    EXPECT_EQ(x.get(), std::vector<float>(1000, 5));
    EXPECT_EQ(*counter, 4);
  }
  device->host_memory().deallocate(counter, 64, MemoryUse::communication);
}

TEST_F(Links, PartsAreReducedByAKernel) {
  const std::int64_t parts = 3, count = 4099;
  const Array x(*device, parts * count, 1.5f), y(*device, count, 0);
  ExecContext& exec = device->exec();
  exec.kernels().collective.reduce(exec, ReduceOp::sum, x.mut().reshaped({parts, count}), y.mut());
  EXPECT_EQ(y.get(), std::vector<float>(static_cast<std::size_t>(count), 4.5f));
}

}  // namespace
}  // namespace weft::test
