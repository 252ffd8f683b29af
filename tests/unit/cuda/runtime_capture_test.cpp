// Recorded steps of a CUDA device: what they keep, and what a recording leaves behind that fails anywhere.
#include "tests/unit/cuda/fake_cuda_fixture.hpp"

namespace weft::test {
namespace {

using testing::HasSubstr;

constexpr std::int64_t count = 1000;
constexpr std::size_t bytes = count * sizeof(float);
constexpr int blocks_held = 2;  // source and result

/// A fault, and where it comes while the work of recorded_work() is recorded.
struct Fault {
  const char* call;
  int at;
};
void PrintTo(const Fault& fault, std::ostream* out) { *out << fault.call << " " << fault.at; }

class DeviceCapture : public CudaRuntime {
 protected:
  DeviceCapture() {
    source_.put(values_from(1, count));
    result_.put(values_from(-5000, count));
  }

  void copy(ExecContext& exec, const DeviceValues& from, const DeviceValues& to) {
    exec.kernels().transfer.copy(exec, from.view(), to.view());
  }

  /// Through memory of its own, scratch, another queue and a kernel.
  void recorded_work() {
    ExecContext& exec = device_->exec();
    const DeviceValues inner(*device_, count);
    copy(exec, source_, inner);
    event_->record(exec);
    event_->hold(*beside_);
    scratch_ = exec.scratch(bytes);
    const MutView scratch(scratch_, {count}, DType::f32, inner.view().device);
    beside_->kernels().transfer.copy(*beside_, inner.view(), scratch);
    event_->record(*beside_);
    event_->hold(exec);
    exec.kernels().elementwise.scale(exec, 1.0f, scratch);
    exec.kernels().transfer.copy(exec, scratch, result_.view());
  }

  /// That an unrecorded step and a recorded one run.
  void expect_usable() {
    result_.put(values_from(0, count));
    copy(device_->exec(), source_, result_);
    EXPECT_EQ(result_.get(), values_from(1, count)) << "without a recording";
    result_.put(values_from(0, count));
    const auto graph = device_->capture([&] { recorded_work(); });
    EXPECT_EQ(result_.get(), values_from(0, count)) << "recorded and run";
    graph->launch();
    EXPECT_EQ(result_.get(), values_from(1, count));
    source_.put(values_from(7, count));
    graph->launch();
    EXPECT_EQ(result_.get(), values_from(7, count)) << "replayed";
    source_.put(values_from(1, count));
  }

  std::unique_ptr<Device> device_ = cuda_module().open({});
  std::unique_ptr<ExecContext> beside_ = device_->make_queue();
  std::unique_ptr<Event> event_ = device_->make_event();
  DeviceValues source_{*device_, count}, result_{*device_, count};
  void* scratch_ = nullptr;
};

class LateDeviceCapture : public DeviceCapture, public testing::WithParamInterface<bool> {
 protected:
  LateDeviceCapture() { fake_cuda().late = GetParam(); }
};
INSTANTIATE_TEST_SUITE_P(Streams, LateDeviceCapture, testing::Bool(),
                         [](const auto& late) { return late.param ? "Late" : "AtOnce"; });

TEST_P(LateDeviceCapture, ReplaysWhatWasRecordedOverQueues) { expect_usable(); }

TEST_P(LateDeviceCapture, EndsAfterItsLastReplayRan) {
  auto graph = device_->capture([&] { recorded_work(); });
  graph->launch();
  graph.reset();
  EXPECT_EQ(fake_cuda().waiting, 0);
  EXPECT_EQ(result_.get(), values_from(1, count));
}

TEST_F(DeviceCapture, KeepsItsMemoryAndScratchForItself) {
  device_->exec().scratch(bytes);  // of a step that was not recorded
  const auto graph = device_->capture([&] { recorded_work(); });
  EXPECT_NE(device_->exec().scratch(bytes), scratch_);
  EXPECT_NE(device_->exec().scratch(100 * bytes), scratch_);
  std::vector<std::unique_ptr<DeviceValues>> others;
  for (int i = 0; i < 6; ++i) {
    others.push_back(std::make_unique<DeviceValues>(*device_, count));
    ASSERT_NE(others.back()->data(), scratch_);
    others.back()->put(values_from(100, count));
  }
  graph->launch();
  EXPECT_EQ(result_.get(), values_from(1, count));
  for (const auto& other : others) EXPECT_EQ(other->get(), values_from(100, count));
}

TEST_F(DeviceCapture, GivesItsMemoryBackToTheCache) {
  auto graph = device_->capture([&] { recorded_work(); });
  EXPECT_EQ(fake_cuda().live().device_blocks, blocks_held + 2);
  graph.reset();
  const int allocations = fake_cuda().calls["cudaMalloc"];
  const DeviceValues again(*device_, count);
  EXPECT_EQ(fake_cuda().calls["cudaMalloc"], allocations);
}

TEST_F(DeviceCapture, StartsWithNothingInTheCache) {
  { const DeviceValues step_that_was_not_recorded(*device_, 1000 * count); }
  EXPECT_GT(fake_cuda().live().device_blocks, blocks_held);
  const auto graph = device_->capture([&] { EXPECT_EQ(fake_cuda().live().device_blocks, blocks_held); });
  EXPECT_EQ(fake_cuda().live().captures, 0);
}

TEST_F(DeviceCapture, TakesTheCacheOfOthersWhenMemoryRunsOut) {
  const auto memory = [](std::size_t blocks) { return blocks * std::size_t{1} << 20; };
  const auto graph = device_->capture([&] {
    // Another thread's, in the midst of it: the pool's own blocks are not for release.
    void* kept = device_->memory().allocate(memory(3), MemoryUse::activation);
    fake_cuda().memory_bytes = memory(8);
    EXPECT_THAT(error_of([&] { device_->memory().allocate(memory(6), MemoryUse::activation); }),
                HasSubstr("out of memory"));
    device_->memory().deallocate(kept, memory(3), MemoryUse::activation);
    EXPECT_EQ(device_->memory().allocate(memory(3), MemoryUse::activation), kept);
    device_->memory().deallocate(kept, memory(3), MemoryUse::activation);
    recorded_work();
  });
  graph->launch();
  EXPECT_EQ(result_.get(), values_from(1, count));
}

TEST_F(DeviceCapture, OfWorkThatThrowsIsEndedWhereverItThrows) {
  for (const bool broken : {false, true}) {
    SCOPED_TRACE(broken);
    const std::string said = error_of([&] {
      device_->capture([&] {
        recorded_work();
        // What waits for the device breaks a capture, which a call after it would hear of.
        if (broken) event_->wait();
        fail("in the midst");
      });
    });
    EXPECT_THAT(said, HasSubstr(broken ? "cudaErrorCapturedEvent" : "in the midst"));
    EXPECT_EQ(device_->recording(), 0);
    EXPECT_EQ(fake_cuda().live().captures, 0);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    event_ = device_->make_event();
    expect_usable();
  }
}

TEST_F(DeviceCapture, LeavesAQueueThatDoesNotComeBackUsable) {
  EXPECT_THAT(error_of([&] {
                device_->capture([&] {
                  event_->record(device_->exec());
                  event_->hold(*beside_);
                  copy(*beside_, source_, result_);
                });
              }),
              HasSubstr("cudaErrorStreamCaptureUnjoined"));
  EXPECT_EQ(fake_cuda().live().captures, 0);
  expect_usable();
}

TEST_F(DeviceCapture, RefusesCopiesFromAndToTheHost) {
  void* memory = device_->host_memory().allocate(bytes, MemoryUse::workspace);
  const MutView host(memory, {count}, DType::f32);
  const auto& transfer = device_->exec().kernels().transfer;
  for (const auto& copies :
       std::vector<std::function<void()>>{[&] { transfer.upload(device_->exec(), host, result_.view()); },
                                          [&] { transfer.upload_later(device_->exec(), host, result_.view()); },
                                          [&] { transfer.download(device_->exec(), source_.view(), host); },
                                          [&] { transfer.download_later(device_->exec(), source_.view(), host); }}) {
    EXPECT_THAT(error_of([&] { device_->capture(copies); }),
                HasSubstr("a copy from or to the host in a recorded step"));
    expect_usable();
  }
  device_->host_memory().deallocate(memory, bytes, MemoryUse::workspace);
}

TEST_F(DeviceCapture, WithinACaptureIsRefusedAndEndsBoth) {
  EXPECT_NE(error_of([&] { device_->capture([&] { device_->capture([] {}); }); }), "");
  EXPECT_EQ(fake_cuda().live().captures, 0);
  expect_usable();
}

TEST_F(DeviceCapture, CountsItsRecordings) {
  std::vector<std::uint64_t> seen;
  for (int i = 0; i < 2; ++i) device_->capture([&] { seen.push_back(device_->recording()); });
  EXPECT_EQ(seen, (std::vector<std::uint64_t>{1, 2}));
  EXPECT_EQ(device_->recording(), 0);
}

class CaptureFault : public DeviceCapture, public testing::WithParamInterface<Fault> {};
INSTANTIATE_TEST_SUITE_P(Calls, CaptureFault,
                         testing::Values(Fault{"cudaDeviceSynchronize", 1}, Fault{"cudaStreamBeginCapture", 1},
                                         Fault{"cudaMalloc", 1}, Fault{"cudaMalloc", 2}, Fault{"cudaMemcpyAsync", 1},
                                         Fault{"cudaMemcpyAsync", 2}, Fault{"cudaMemcpyAsync", 3},
                                         Fault{"cudaEventRecord", 1}, Fault{"cudaEventRecord", 2},
                                         Fault{"cudaStreamWaitEvent", 1}, Fault{"cudaStreamWaitEvent", 2},
                                         Fault{"cudaLaunchKernel", 1}, Fault{"cudaStreamEndCapture", 1},
                                         Fault{"cudaGraphInstantiate", 1}));

TEST_P(CaptureFault, EndsTheCaptureAndTheDeviceGoesOn) {
  for (const auto& [status, name] : error_codes()) {
    const bool asks_again = status == cudaErrorMemoryAllocation && GetParam().call == std::string("cudaMalloc");
    if (is_sticky(status) || asks_again) continue;
    SCOPED_TRACE(name);
    fake_cuda().fail(GetParam().call, status, GetParam().at);
    const std::string said = error_of([&] { device_->capture([&] { recorded_work(); }); });
    ASSERT_EQ(fake_cuda().failures, 1);
    fake_cuda().failures = 0;
    EXPECT_THAT(said, HasSubstr(GetParam().call));
    EXPECT_THAT(said, HasSubstr(name));
    EXPECT_EQ(fake_cuda().live().captures, 0);
    EXPECT_EQ(fake_cuda().live().graphs, 0);
    EXPECT_EQ(fake_cuda().live().executables, 0);
    EXPECT_EQ(device_->recording(), 0);
    EXPECT_EQ(cudaGetLastError(), cudaSuccess);
    event_ = device_->make_event();
    expect_usable();
    if (HasFailure()) return;
  }
}

TEST_F(DeviceCapture, ThatRunsOutOfMemorySaysSoAndTheDeviceGoesOn) {
  fake_cuda().fail("cudaMalloc", cudaErrorMemoryAllocation, 1, 2);
  EXPECT_THAT(error_of([&] { device_->capture([&] { recorded_work(); }); }), HasSubstr("out of memory: 4096 bytes"));
  EXPECT_EQ(fake_cuda().failures, 2);
  expect_usable();
}

TEST_F(DeviceCapture, ReplayThatIsRefusedSaysSoAndMayBeTriedAgain) {
  const auto graph = device_->capture([&] { recorded_work(); });
  fake_cuda().fail("cudaGraphLaunch", cudaErrorMemoryAllocation);
  EXPECT_THAT(error_of([&] { graph->launch(); }), HasSubstr("cudaGraphLaunch: reason 2 (cudaErrorMemoryAllocation)"));
  graph->launch();
  EXPECT_EQ(result_.get(), values_from(1, count));
}

}  // namespace
}  // namespace weft::test
