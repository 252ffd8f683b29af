// Every failure of every call of the CUDA runtime that a device makes in its life: one Error that names it, nothing left
// behind, and never out of a destructor.
#include "tests/unit/cuda/fake_cuda_fixture.hpp"

namespace weft::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr std::int64_t count = 100;
constexpr std::size_t bytes = count * sizeof(float);

struct LinearInputs {
  explicit LinearInputs(Device& device) : x(device, 64), w(device, 64), y(device, 64) {}
  MutView matrix(DeviceValues& values) const {
    return MutView(values.data(), {8, 8}, DType::f32, values.view().device);
  }
  DeviceValues x, w, y;
};

void multiply(Device& device, LinearInputs& on) {
  WeightRef weight;
  weight.value = on.matrix(on.w);
  device.exec().kernels().linear.forward(device.exec(), on.matrix(on.x), weight, {}, Epilogue::none, {}, {},
                                         on.matrix(on.y));
}

// Own attention, whose blocks want more shared memory than a kernel has unasked.
void attend(Device& device, const DeviceValues& values) {
  const MutView all(values.data(), {1, 1, 1, count}, DType::f32, values.view().device);
  device.exec().kernels().attention.forward(device.exec(), all, all, all, {}, all, {});
}

/// All that a training asks of a device. `ending` becomes true if nothing has failed when destructors alone are left.
void live_a_life(bool& ending) {
  cuda_module().describe();
  DeviceOptions options;
  options.measure_products = true;
  const std::unique_ptr<Device> device = cuda_module().open(options);
  device->enter_thread();
  ExecContext& exec = device->exec();
  const auto& transfer = exec.kernels().transfer;
  DeviceValues first(*device, count), second(*device, count);
  first.put(values_from(0, count));
  Allocator& pinned = device->host_memory();
  const auto give_back = [&](void* data) { pinned.deallocate(data, bytes, MemoryUse::workspace); };
  const std::unique_ptr<void, decltype(give_back)> host(pinned.allocate(bytes, MemoryUse::workspace), give_back);
  const MutView staged(host.get(), {count}, DType::f32);
  transfer.upload_later(exec, staged, first.view());
  transfer.copy(exec, first.view(), second.view());
  transfer.download_later(exec, second.view(), staged);

  const std::unique_ptr<ExecContext> beside = device->make_queue();
  const std::unique_ptr<Event> event = device->make_event();
  event->record(exec);
  event->hold(*beside);
  event->passed();
  event->wait();
  second.get();

  LinearInputs product(*device);
  multiply(*device, product);
  attend(*device, first);
  const auto graph = device->capture([&] {
    exec.kernels().elementwise.fill(exec, 1.0f, first.view());
    event->record(exec);
    event->hold(*beside);
    beside->kernels().elementwise.fill(*beside, 2.0f, second.view());
    event->record(*beside);
    event->hold(exec);
    DeviceValues inner(*device, 1000 * count);
  });
  graph->launch();
  synchronize(*device);
  ending = fake_cuda().failures == 0;
}

/// What goes on although a call fails so: what a call ends is ended, and what is asked for again may come.
bool goes_on(const std::string& call, cudaError_t status, int at) {
  if (call == "cudaMalloc" || call == "cudaHostAlloc") return status == cudaErrorMemoryAllocation;
  if (call == "cudaEventQuery") return status == cudaErrorNotReady;
  // The way back from a look at all devices.
  if (call == "cudaSetDevice") return at == 3;
  return call == "cudaFree" || call == "cudaFreeHost" || call.ends_with("Destroy");
}

/// With streams that run what they are given at once, and as late as may be.
class Failures : public CudaRuntime, public testing::WithParamInterface<bool> {
 protected:
  static void prepare() {
    fake_cuda().reset();
    fake_cuda().devices = 2;
    fake_cuda().late = GetParam();
  }

  /// How often each call comes in a life.
  static std::map<std::string, int> calls_of_a_life() {
    prepare();
    bool ending = false;
    live_a_life(ending);
    return fake_cuda().calls;
  }

  static void expect_told(const std::string& call, cudaError_t status, int at) {
    // What goes wrong while a kernel runs costs the device.
    if (call == "kernel" && !is_sticky(status)) return;
    SCOPED_TRACE(fmt::format("{} gives {} at its call {}", call, cudaGetErrorName(status), at));
    prepare();
    fake_cuda().fail(call, status, at);
    bool ending = false;
    const std::string said = error_of([&] { live_a_life(ending); });
    ASSERT_EQ(fake_cuda().failures, 1);
    expect_clean();
    if (ending) {
      EXPECT_EQ(said, "");
      return;
    }
    if (goes_on(call, status, at)) {
      // Of a device that is lost the next call tells, if there is one.
      EXPECT_TRUE(said.empty() || (is_sticky(status) && said.find(cudaGetErrorName(status)) != said.npos)) << said;
      return;
    }
    if (call == "cudaGetDeviceCount" && status == cudaErrorNoDevice) {
      EXPECT_THAT(said, HasSubstr("no GPU"));
      return;
    }
    EXPECT_THAT(
        said, AllOf(HasSubstr(cudaGetErrorName(status)), HasSubstr(cudaGetErrorString(status)), Not(HasSubstr("\n"))));
    if (call == "kernel" || call == "cudaGetDeviceCount") return;
    EXPECT_THAT(said, HasSubstr(call));
    // Once.
    EXPECT_EQ(said.find(cudaGetErrorName(status)), said.rfind(cudaGetErrorName(status)));
  }
};

INSTANTIATE_TEST_SUITE_P(Streams, Failures, testing::Bool(),
                         [](const auto& late) { return late.param ? "Late" : "AtOnce"; });

TEST_P(Failures, OfEveryCallWithEveryCodeAreOneErrorAndLeaveNothing) {
  const auto calls = calls_of_a_life();
  for (const auto& [call, times] : calls)
    for (const auto& [status, name] : error_codes()) {
      expect_told(call, status, 1);
      if (HasFailure()) return;
    }
}

TEST_P(Failures, AtEveryCallOfALifeAreOneErrorAndLeaveNothing) {
  const auto calls = calls_of_a_life();
  for (const auto& [call, times] : calls)
    for (int at = 2; at <= times; ++at)
      for (const cudaError_t status :
           {cudaErrorInvalidValue, cudaErrorMemoryAllocation, cudaErrorNotReady, cudaErrorIllegalAddress}) {
        expect_told(call, status, at);
        if (HasFailure()) return;
      }
}

TEST_P(Failures, TableHasEveryCallThatTheModuleMakes) {
  std::vector<std::string> found;
  for (const auto& [call, times] : calls_of_a_life()) found.push_back(call);
  EXPECT_THAT(
      found, testing::ElementsAre(
                 "cudaDeviceCanAccessPeer", "cudaDeviceGetAttribute", "cudaDeviceGetPCIBusId",
                 "cudaDeviceGetStreamPriorityRange", "cudaDeviceSynchronize", "cudaDriverGetVersion", "cudaEventCreate",
                 "cudaEventCreateWithFlags", "cudaEventDestroy", "cudaEventElapsedTime", "cudaEventQuery",
                 "cudaEventRecord", "cudaEventSynchronize", "cudaFree", "cudaFreeHost", "cudaFuncSetAttribute",
                 "cudaGetDevice", "cudaGetDeviceCount", "cudaGetDeviceProperties", "cudaGraphDestroy",
                 "cudaGraphExecDestroy", "cudaGraphInstantiate", "cudaGraphLaunch", "cudaHostAlloc", "cudaLaunchKernel",
                 "cudaMalloc", "cudaMemGetInfo", "cudaMemcpyAsync", "cudaRuntimeGetVersion", "cudaSetDevice",
                 "cudaStreamBeginCapture", "cudaStreamCreateWithPriority", "cudaStreamDestroy", "cudaStreamEndCapture",
                 "cudaStreamIsCapturing", "cudaStreamSynchronize", "cudaStreamWaitEvent", "kernel"));
}

}  // namespace
}  // namespace weft::test
