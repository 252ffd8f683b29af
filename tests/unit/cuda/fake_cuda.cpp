// Stands in for the CUDA runtime where there is no GPU: what Weft calls, and what nvcc's host code calls to register and
// start kernels, which do not run. WEFT_FAKE_CUDA in the environment sets words of its machine, for programs:
//   driver=12040  devices=0  kernels=0  memory=BYTES  fail=CALL:STATUS@N
#include <cxxabi.h>

#include <array>
#include <cstdlib>
#include <sstream>

#include "tests/unit/cuda/fake_cuda_machine.hpp"

namespace weft::test {
namespace {

constexpr FakeCuda::Code codes[] = {
#define WEFT_CODE(name) {name, #name},
#include "cuda_error_codes.inc"
#undef WEFT_CODE
};

thread_local cudaError_t last_error = cudaSuccess;
thread_local int current_device = 0;

void set_word(FakeCuda& face, const std::string& word) {
  const std::size_t equals = word.find('=');
  const std::string name = word.substr(0, equals), value = word.substr(equals + 1);
  if (name == "driver") face.driver = std::stoi(value);
  if (name == "devices") face.devices = std::stoi(value);
  if (name == "kernels") face.has_kernels = value != "0";
  if (name == "memory") face.memory_bytes = std::stoull(value);
  if (name != "fail") return;
  const std::size_t colon = value.find(':'), at = value.find('@');
  face.fail(value.substr(0, colon), static_cast<cudaError_t>(std::stoi(value.substr(colon + 1))),
            std::stoi(value.substr(at + 1)));
}

FakeMachine& machine() {
  static FakeMachine& made = [&]() -> FakeMachine& {
    if (const char* words = std::getenv("WEFT_FAKE_CUDA")) {
      std::istringstream in(words);
      for (std::string word; in >> word;) set_word(fake_cuda(), word);
    }
    return fake_machine();
  }();
  return made;
}

cudaError_t keep(cudaError_t status) {
  if (status != cudaSuccess) last_error = status;
  return status;
}

/// A call: its fault, or that the device is lost, or what it does.
template <class Body>
cudaError_t run(const char* name, Body body) {
  const std::lock_guard lock(machine().mutex);
  cudaError_t status = machine().failure(name);
  if (status == cudaSuccess) status = machine().lost;
  return keep(status == cudaSuccess ? body() : status);
}

/// A call that ends something, which it also does where it fails.
template <class Body>
cudaError_t run_end(const char* name, Body body) {
  const std::lock_guard lock(machine().mutex);
  const cudaError_t failed = machine().failure(name), lost = machine().lost, status = body();
  return keep(failed != cudaSuccess ? failed : lost != cudaSuccess ? lost : status);
}

/// A call that asks about a device.
template <class Body>
cudaError_t run_on(const char* name, int device, Body body) {
  return run(name, [&] {
    if (device < 0 || device >= machine().face.devices) return cudaErrorInvalidDevice;
    body();
    return cudaSuccess;
  });
}

cudaEvent_t make_event(bool timed) {
  auto event = std::make_shared<FakeEvent>();
  event->timed = timed;
  return machine().add<FakeEvent, cudaEvent_t>(machine().events, std::move(event));
}

cudaError_t wait_for(cudaEvent_t handle, bool blocks) {
  const auto event = machine().find(machine().events, handle);
  if (!event) return cudaErrorInvalidResourceHandle;
  if (event->capture) return machine().refuse_in_capture(event->capture, cudaErrorCapturedEvent);
  if (!event->stream) return cudaSuccess;
  if (blocks) {
    machine().run(*event->stream, event->position);
  } else if (event->stream->done < event->position) {
    // Whoever asks again and again sees it happen.
    machine().run(*event->stream, event->stream->done + 1);
    return cudaErrorNotReady;
  }
  return machine().lost;
}

}  // namespace

std::span<const FakeCuda::Code> error_codes() { return codes; }

}  // namespace weft::test

using namespace weft::test;

extern "C" {

// What does not fail.

const char* cudaGetErrorName(cudaError_t status) {
  if (status == cudaSuccess) return "cudaSuccess";
  for (const auto& [value, name] : codes)
    if (value == status) return name;
  return "unrecognized error code";
}
const char* cudaGetErrorString(cudaError_t status) {
  static std::map<cudaError_t, std::string> texts;
  const std::lock_guard lock(machine().mutex);
  return texts.try_emplace(status, "reason " + std::to_string(status)).first->second.c_str();
}
cudaError_t cudaGetLastError() {
  const cudaError_t before = last_error;
  last_error = machine().lost;
  return before;
}

// Devices.

cudaError_t cudaGetDeviceCount(int* count) {
  return run("cudaGetDeviceCount", [&] {
    *count = machine().face.devices;
    if (machine().face.driver < CUDART_VERSION / 1000 * 1000) return cudaErrorInsufficientDriver;
    return *count == 0 ? cudaErrorNoDevice : cudaSuccess;
  });
}
cudaError_t cudaDriverGetVersion(int* version) {
  return run("cudaDriverGetVersion", [&] {
    *version = machine().face.driver;
    return cudaSuccess;
  });
}
cudaError_t cudaRuntimeGetVersion(int* version) {
  return run("cudaRuntimeGetVersion", [&] {
    *version = CUDART_VERSION;
    return cudaSuccess;
  });
}
cudaError_t cudaSetDevice(int device) {
  return run_on("cudaSetDevice", device, [&] { current_device = device; });
}
cudaError_t cudaGetDevice(int* device) {
  return run("cudaGetDevice", [&] {
    *device = current_device;
    return cudaSuccess;
  });
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return run_on("cudaGetDeviceProperties", device, [&] {
    *properties = {};
    std::snprintf(properties->name, sizeof properties->name, "Fake GPU");
    properties->major = machine().face.capability / 10;
    properties->minor = machine().face.capability % 10;
    properties->totalGlobalMem = machine().face.memory_bytes;
  });
}
cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return run_on("cudaDeviceGetAttribute", device, [&] {
    const int capability = machine().face.capability;
    *value = attribute == cudaDevAttrComputeCapabilityMajor ? capability / 10 : capability % 10;
  });
}
cudaError_t cudaDeviceGetPCIBusId(char* text, int bytes, int device) {
  return run_on("cudaDeviceGetPCIBusId", device,
                [&] { std::snprintf(text, static_cast<std::size_t>(bytes), "0000:%02x:00.0", device + 1); });
}
cudaError_t cudaDeviceCanAccessPeer(int* reaches, int device, int peer) {
  return run_on("cudaDeviceCanAccessPeer", device, [&] { *reaches = device != peer ? 1 : 0; });
}
cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return run("cudaDeviceGetStreamPriorityRange", [&] {
    *least = 0;
    *greatest = -5;
    return cudaSuccess;
  });
}
cudaError_t cudaDeviceSynchronize() {
  return run("cudaDeviceSynchronize", [&] {
    for (const auto& [handle, stream] : machine().streams)
      if (stream->capture) return machine().refuse_in_capture(stream->capture, cudaErrorStreamCaptureUnsupported);
    machine().run_all();
    return machine().lost;
  });
}

// Memory.

cudaError_t cudaMemGetInfo(std::size_t* free, std::size_t* total) {
  return run("cudaMemGetInfo", [&] {
    *total = machine().face.memory_bytes;
    *free = *total - machine().used(false);
    return cudaSuccess;
  });
}
cudaError_t cudaMalloc(void** data, std::size_t bytes) {
  return run("cudaMalloc", [&] { return machine().allocate(data, bytes, false); });
}
cudaError_t cudaFree(void* data) {
  return run_end("cudaFree", [&] { return machine().deallocate(data, false); });
}
cudaError_t cudaHostAlloc(void** data, std::size_t bytes, unsigned) {
  return run("cudaHostAlloc", [&] { return machine().allocate(data, bytes, true); });
}
cudaError_t cudaFreeHost(void* data) {
  return run_end("cudaFreeHost", [&] { return machine().deallocate(data, true); });
}
cudaError_t cudaMemcpyAsync(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  return run("cudaMemcpyAsync", [&] { return machine().copy(to, from, bytes, kind, stream); });
}

// Streams.

cudaError_t cudaStreamCreateWithPriority(cudaStream_t* stream, unsigned, int) {
  return run("cudaStreamCreateWithPriority", [&] {
    *stream = machine().add<FakeStream, cudaStream_t>(machine().streams, std::make_shared<FakeStream>());
    return cudaSuccess;
  });
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
  return run_end("cudaStreamDestroy", [&] {
    if (const auto on = machine().find(stream)) machine().run(*on, on->added);
    return machine().end(machine().streams, stream, "a stream");
  });
}
cudaError_t cudaStreamSynchronize(cudaStream_t stream) {
  return run("cudaStreamSynchronize", [&] {
    const auto on = machine().find(stream);
    if (!on) return cudaErrorInvalidResourceHandle;
    if (on->capture) return machine().refuse_in_capture(on->capture, cudaErrorStreamCaptureUnsupported);
    machine().run(*on, on->added);
    return machine().lost;
  });
}
cudaError_t cudaStreamWaitEvent(cudaStream_t stream, cudaEvent_t event, unsigned) {
  return run("cudaStreamWaitEvent", [&] { return machine().hold(stream, event); });
}
cudaError_t cudaStreamIsCapturing(cudaStream_t stream, cudaStreamCaptureStatus* status) {
  return run("cudaStreamIsCapturing", [&] {
    const auto on = machine().find(stream);
    if (!on) return cudaErrorInvalidResourceHandle;
    *status = !on->capture           ? cudaStreamCaptureStatusNone
              : on->capture->invalid ? cudaStreamCaptureStatusInvalidated
                                     : cudaStreamCaptureStatusActive;
    return cudaSuccess;
  });
}
cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
  return run("cudaStreamBeginCapture", [&] { return machine().begin_capture(stream); });
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t* graph) {
  const cudaError_t status = run_end("cudaStreamEndCapture", [&] { return machine().end_capture(stream, graph); });
  if (status != cudaSuccess && *graph) machine().graphs.erase(std::exchange(*graph, nullptr));
  return status;
}

// Events.

cudaError_t cudaEventCreate(cudaEvent_t* event) {
  return run("cudaEventCreate", [&] {
    *event = make_event(true);
    return cudaSuccess;
  });
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t* event, unsigned flags) {
  return run("cudaEventCreateWithFlags", [&] {
    *event = make_event((flags & cudaEventDisableTiming) == 0);
    return cudaSuccess;
  });
}
cudaError_t cudaEventDestroy(cudaEvent_t event) {
  return run_end("cudaEventDestroy", [&] { return machine().end(machine().events, event, "an event"); });
}
cudaError_t cudaEventRecord(cudaEvent_t event, cudaStream_t stream) {
  return run("cudaEventRecord", [&] { return machine().record(event, stream); });
}
cudaError_t cudaEventQuery(cudaEvent_t event) {
  return run("cudaEventQuery", [&] { return wait_for(event, false); });
}
cudaError_t cudaEventSynchronize(cudaEvent_t event) {
  return run("cudaEventSynchronize", [&] { return wait_for(event, true); });
}
cudaError_t cudaEventElapsedTime(float* ms, cudaEvent_t begin, cudaEvent_t end) {
  return run("cudaEventElapsedTime", [&] {
    const auto first = machine().find(machine().events, begin), last = machine().find(machine().events, end);
    if (!first || !last || !first->timed || !last->timed) return cudaErrorInvalidResourceHandle;
    if (!first->stream || !last->stream) return cudaErrorInvalidResourceHandle;
    if (last->stream->done < last->position) return cudaErrorNotReady;
    *ms = 1;
    return cudaSuccess;
  });
}

// Graphs.

cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
  return run_end("cudaGraphDestroy", [&] { return machine().end(machine().graphs, graph, "a graph"); });
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t* made, cudaGraph_t graph, unsigned long long) {
  return run("cudaGraphInstantiate", [&] {
    const auto from = machine().find(machine().graphs, graph);
    if (!from) return cudaErrorInvalidValue;
    *made = machine().add<FakeGraph, cudaGraphExec_t>(machine().executables, std::make_shared<FakeGraph>(*from));
    return cudaSuccess;
  });
}
cudaError_t cudaGraphLaunch(cudaGraphExec_t graph, cudaStream_t stream) {
  return run("cudaGraphLaunch", [&] {
    const auto from = machine().find(machine().executables, graph);
    if (!from) return cudaErrorInvalidValue;
    return machine().enqueue(stream, [whole = std::weak_ptr(from)] {
      const auto still = whole.lock();
      if (!still) return machine().face.faults_of_the_caller.push_back("a graph is ended before it ran");
      for (const Work& work : still->work) work();
    });
  });
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t graph) {
  return run_end("cudaGraphExecDestroy",
                 [&] { return machine().end(machine().executables, graph, "an executable graph"); });
}

// Kernels.

cudaError_t cudaFuncSetAttribute(const void* function, cudaFuncAttribute attribute, int value) {
  return run("cudaFuncSetAttribute", [&] {
    const auto kernel = machine().kernels.find(function);
    if (kernel == machine().kernels.end()) return cudaErrorInvalidDeviceFunction;
    if (attribute == cudaFuncAttributeMaxDynamicSharedMemorySize)
      kernel->second.most_shared = static_cast<std::size_t>(value);
    return cudaSuccess;
  });
}
cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments, std::size_t shared_bytes,
                             cudaStream_t stream) {
  return run("cudaLaunchKernel", [&] {
    if (!arguments || grid.y != 1 || grid.z != 1 || block.y != 1 || block.z != 1) return cudaErrorInvalidValue;
    return machine().launch(function, grid.x, static_cast<int>(block.x), shared_bytes, stream);
  });
}

void** __cudaRegisterFatBinary(void*) {
  static void* handle = nullptr;
  return &handle;
}
void __cudaRegisterFatBinaryEnd(void**) {}
void __cudaUnregisterFatBinary(void**) {}
void __cudaRegisterFunction(void**, const char* function, char*, const char* name, int, uint3*, uint3*, dim3*, dim3*,
                            int*) {
  int status = 0;
  char* plain = abi::__cxa_demangle(name, nullptr, nullptr, &status);
  fake_machine().kernels[function] = {plain ? plain : name};
  std::free(plain);
}

// A launch by <<<>>>, which Weft has none of: launch() goes by cudaLaunchKernel.
unsigned __cudaPushCallConfiguration(dim3, dim3, std::size_t, CUstream_st*) { return 1; }
cudaError_t __cudaPopCallConfiguration(dim3*, dim3*, std::size_t*, void*) { return cudaErrorNotSupported; }
cudaError_t __cudaGetKernel(cudaKernel_t*, const void*) { return cudaErrorNotSupported; }
cudaError_t __cudaLaunchKernel(cudaKernel_t, dim3, dim3, void**, std::size_t, cudaStream_t) {
  return cudaErrorNotSupported;
}

}  // extern "C"
