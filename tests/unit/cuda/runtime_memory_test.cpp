// Memory and copies of a CUDA device: what happens when it runs out, and what staging does while streams are late.
#include "tests/unit/cuda/fake_cuda_fixture.hpp"

namespace weft::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;

constexpr std::size_t mib = std::size_t{1} << 20;

class DeviceMemory : public CudaRuntime {
 protected:
  void open() {
    device_ = cuda_module().open({});
    fake_cuda().calls.clear();
  }
  static int calls(const char* name) { return fake_cuda().calls[name]; }
  /// A block that is given back at once, and stays in the cache.
  static void touch(Allocator& memory, std::size_t bytes) {
    memory.deallocate(memory.allocate(bytes, MemoryUse::activation), bytes, MemoryUse::activation);
  }

  std::unique_ptr<Device> device_;
};

TEST_F(DeviceMemory, CachedBlocksAreReleasedBeforeItIsExhausted) {
  open();
  fake_cuda().memory_bytes = 100 * mib;
  touch(device_->memory(), 64 * mib);
  EXPECT_EQ(calls("cudaMalloc"), 1);
  touch(device_->memory(), 80 * mib);
  EXPECT_EQ(calls("cudaMalloc"), 3) << "asked, released, asked again";
  EXPECT_EQ(calls("cudaFree"), 1);
  touch(device_->memory(), 80 * mib);
  EXPECT_EQ(calls("cudaMalloc"), 3) << "a block of the same size comes from the cache";
}

TEST_F(DeviceMemory, ExhaustedSaysWhatWasAskedForWhatIsInUseAndWhatIsFree) {
  open();
  const std::size_t before = device_->memory().stats().total_live;
  fake_cuda().memory_bytes = 100 * mib;
  void* held = device_->memory().allocate(64 * mib, MemoryUse::parameter);
  touch(device_->memory(), mib);
  std::size_t free = 0, total = 0;
  cudaMemGetInfo(&free, &total);
  const std::string said = error_of([&] { device_->memory().allocate(80 * mib, MemoryUse::activation); });
  EXPECT_EQ(said, fmt::format("out of memory: {} bytes for activation beside {} in use and 0 that recorded steps keep; "
                              "the GPU has {} of {} bytes free",
                              80 * mib, before + 64 * mib, free + mib, total));
  // It goes on.
  EXPECT_EQ(device_->memory().stats().total_live, before + 64 * mib);
  touch(device_->memory(), 30 * mib);
  device_->memory().deallocate(held, 64 * mib, MemoryUse::parameter);
}

TEST_F(DeviceMemory, ExhaustedIsSaidWhereTheDeviceDoesNotEvenTellWhatIsFree) {
  open();
  fake_cuda().memory_bytes = 10 * mib;
  fake_cuda().fail("cudaMemGetInfo", cudaErrorInvalidValue);
  const std::string said = error_of([&] { device_->memory().allocate(80 * mib, MemoryUse::activation); });
  EXPECT_THAT(said, AllOf(HasSubstr("out of memory: 83886080 bytes for activation"), testing::Not(HasSubstr(";"))));
}

TEST_F(DeviceMemory, PinnedMemoryThatIsExhaustedIsNoDeviceMemory) {
  open();
  fake_cuda().pinned_bytes = 100 * mib;
  touch(device_->host_memory(), 40 * mib);
  touch(device_->host_memory(), 60 * mib);
  EXPECT_EQ(calls("cudaFreeHost"), 1);
  EXPECT_THAT(error_of([&] { device_->host_memory().allocate(192 * mib, MemoryUse::workspace); }),
              AllOf(HasSubstr("out of memory: 201326592 bytes for workspace"), HasSubstr("pins no more")));
}

TEST_F(DeviceMemory, ThatRunsOutWhileADeviceIsOpenedLeavesNothing) {
  // The first kernel's memory, and each of the staging's buffers.
  fake_cuda().memory_bytes = 10;
  EXPECT_THAT(error_of([] { cuda_module().open({}); }), HasSubstr("out of memory"));
  expect_clean();
  for (std::size_t buffers = 0; buffers < 4; ++buffers) {
    fake_cuda().reset();
    fake_cuda().pinned_bytes = buffers * 4 * mib;
    EXPECT_THAT(error_of([] { cuda_module().open({}); }), HasSubstr("out of memory")) << buffers;
    expect_clean();
  }
}

/// With streams that run what they are given at once, and as late as may be.
class Copies : public DeviceMemory, public testing::WithParamInterface<bool> {
 protected:
  Copies() {
    fake_cuda().late = GetParam();
    open();
  }
};
INSTANTIATE_TEST_SUITE_P(Streams, Copies, testing::Bool(),
                         [](const auto& late) { return late.param ? "Late" : "AtOnce"; });

TEST_P(Copies, OfAnySizeArriveThoughTheHostsMemoryIsReused) {
  // Below, at and above a staging buffer of 4 MiB, and more than all of them.
  for (const std::size_t bytes : {std::size_t{4}, mib, 4 * mib - 4, 4 * mib, 4 * mib + 4, 19 * mib}) {
    const auto count = static_cast<std::int64_t>(bytes / sizeof(float));
    DeviceValues first(*device_, count), second(*device_, count);
    std::vector<float> values = values_from(1, count);
    first.put(values);
    for (float& value : values) value = -value;
    second.put(values);
    std::ranges::fill(values, 0.0f);
    EXPECT_TRUE(first.get() == values_from(1, count)) << bytes;
    EXPECT_EQ(second.get().back(), -static_cast<float>(count)) << bytes;
  }
}

TEST_P(Copies, OfManySmallPiecesArrive) {
  constexpr std::int64_t count = 1000, pieces = 5000;  // 20 MB
  std::vector<std::unique_ptr<DeviceValues>> all;
  for (std::int64_t i = 0; i < pieces; ++i) {
    all.push_back(std::make_unique<DeviceValues>(*device_, count));
    all.back()->put(values_from(static_cast<float>(i), count));
  }
  for (std::int64_t i = 0; i < pieces; i += 7)
    ASSERT_TRUE(all[static_cast<std::size_t>(i)]->get() == values_from(static_cast<float>(i), count)) << i;
}

TEST_P(Copies, OfOneQueueWaitForTheEventOfAnother) {
  constexpr std::int64_t count = 10;
  const std::unique_ptr<ExecContext> beside = device_->make_queue();
  DeviceValues from(*device_, count), to(*device_, count);
  const std::unique_ptr<Event> event = device_->make_event();
  EXPECT_TRUE(event->passed()) << "before it was recorded";
  from.put(values_from(1, count));
  event->record(device_->exec());
  event->hold(*beside);
  beside->kernels().transfer.copy(*beside, from.view(), to.view());
  synchronize(*device_, *beside);
  EXPECT_EQ(to.get(), values_from(1, count));
}

TEST_P(Copies, LaterAreThereWhenAnEventHasPassed) {
  constexpr std::int64_t count = 10;
  constexpr std::size_t bytes = count * sizeof(float);
  void* memory = device_->host_memory().allocate(bytes, MemoryUse::workspace);
  const MutView host(memory, {count}, DType::f32);
  auto* values = static_cast<float*>(memory);
  DeviceValues there(*device_, count);
  const auto& transfer = device_->exec().kernels().transfer;
  std::ranges::copy(values_from(1, count), values);
  transfer.upload_later(device_->exec(), host, there.view());
  const std::unique_ptr<Event> event = device_->make_event();
  event->record(device_->exec());
  if (GetParam()) {
    EXPECT_FALSE(event->passed());
    EXPECT_EQ(cudaGetLastError(), cudaSuccess) << "not ready is no error of the next call";
  }
  event->wait();
  EXPECT_TRUE(event->passed());
  std::fill_n(values, count, 0.0f);
  transfer.download_later(device_->exec(), there.view(), host);
  event->record(device_->exec());
  while (!event->passed()) {
  }
  EXPECT_TRUE(std::equal(values, values + count, values_from(1, count).begin()));
  device_->host_memory().deallocate(memory, bytes, MemoryUse::workspace);
}

TEST_P(Copies, OfNothingAreNothing) {
  const auto& transfer = device_->exec().kernels().transfer;
  const MutView none(nullptr, {0}, DType::f32), none_there(nullptr, {0}, DType::f32, device_->memory().device());
  transfer.upload(device_->exec(), none, none_there);
  transfer.upload_later(device_->exec(), none, none_there);
  transfer.download(device_->exec(), none_there, none);
  transfer.download_later(device_->exec(), none_there, none);
  transfer.copy(device_->exec(), none_there, none_there);
  EXPECT_EQ(calls("cudaMemcpyAsync"), 0);
}

}  // namespace
}  // namespace weft::test
