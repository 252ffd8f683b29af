// What a recorded step keeps for itself, and what a recording that fails leaves behind.
#include <gtest/gtest.h>

#include <array>

#include "core/cuda/fibers/fiber_device.hpp"
#include "core/kernels/table.hpp"

namespace weft::cuda::fibers {
namespace {

constexpr std::int64_t count = 1000;
constexpr std::size_t bytes = count * sizeof(float);

MutView floats(void* data, const Allocator& memory) { return MutView(data, {count}, DType::f32, memory.device()); }

class Capture : public testing::Test {
 protected:
  void fill(void* data, float value) { exec_.kernels().elementwise.fill(exec_, value, floats(data, exec_.memory())); }
  float first_of(void* data) {
    std::array<float, count> host{};
    exec_.kernels().transfer.download(exec_, floats(data, exec_.memory()), MutView(host.data(), {count}, DType::f32));
    return host[0];
  }

  std::unique_ptr<Device> device_ = make_device({});
  ExecContext& exec_ = device_->exec();
};

TEST_F(Capture, SharesItsScratchWithNobody) {
  exec_.scratch(bytes);  // of a step that was not recorded
  void* recorded = nullptr;
  const auto graph = device_->capture([&] {
    recorded = exec_.scratch(bytes);
    fill(recorded, 2);
  });
  // What comes later outgrows the scratch, and takes blocks of its size.
  exec_.scratch(100 * bytes);
  std::array<void*, 4> others{};
  for (void*& other : others) {
    other = exec_.memory().allocate(bytes, MemoryUse::activation);
    ASSERT_NE(other, recorded);
    fill(other, 1);
  }
  graph->launch();
  for (void* other : others) {
    EXPECT_EQ(first_of(other), 1);
    exec_.memory().deallocate(other, bytes, MemoryUse::activation);
  }
}

TEST_F(Capture, ThatFailsLeavesTheDeviceUsable) {
  void* data = exec_.memory().allocate(bytes, MemoryUse::activation);
  fill(data, 1);
  EXPECT_THROW(device_->capture([&] {
    fill(data, 2);
    fail("in the middle of a recording");
  }),
               Error);
  EXPECT_EQ(first_of(data), 1);
  const auto graph = device_->capture([&] { fill(data, 3); });
  EXPECT_EQ(first_of(data), 1);
  graph->launch();
  EXPECT_EQ(first_of(data), 3);
  exec_.memory().deallocate(data, bytes, MemoryUse::activation);
}

TEST_F(Capture, RefusesCopiesToAndFromTheHost) {
  void* data = exec_.memory().allocate(bytes, MemoryUse::activation);
  fill(data, 1);
  EXPECT_THROW(device_->capture([&] { first_of(data); }), Error);
  EXPECT_EQ(first_of(data), 1);
  exec_.memory().deallocate(data, bytes, MemoryUse::activation);
}

}  // namespace
}  // namespace weft::cuda::fibers
