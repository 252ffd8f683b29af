#include "tests/unit/cuda/fake_cuda_machine.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <cstring>

namespace weft::test {
namespace {

constexpr std::size_t most_shared_bytes = std::size_t{227} << 10;  // of a block on sm_90
constexpr std::int64_t most_blocks = 0x7fffffff;
constexpr int most_threads = 1024;

void merge(Clock& into, const Clock& from) {
  for (const auto& [stream, count] : from) into[stream] = std::max(into[stream], count);
}

}  // namespace

FakeMachine& fake_machine() {
  // Kernels are registered before main(), and left after it.
  static auto* machine = new FakeMachine;
  return *machine;
}

bool is_sticky(cudaError_t status) {
  switch (status) {
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchTimeout:
    case cudaErrorAssert:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorLaunchFailure: return true;
    default: return false;
  }
}

cudaError_t FakeMachine::failure(const char* call) {
  ++face.calls[call];
  if (face.failing_call != call || face.failing_times == 0) return cudaSuccess;
  if (face.failing_at > 1) {
    --face.failing_at;
    return cudaSuccess;
  }
  --face.failing_times;
  ++face.failures;
  if (is_sticky(face.failing_status)) lost = face.failing_status;
  return face.failing_status;
}

// Memory that nobody writes takes none of the host's: tests ask for whole GPUs.
cudaError_t FakeMachine::allocate(void** data, std::size_t bytes, bool pinned) {
  const std::size_t limit = pinned ? face.pinned_bytes : face.memory_bytes;
  std::size_t& used = used_[pinned ? 1 : 0];
  if (bytes > limit - used) return cudaErrorMemoryAllocation;
  void* block = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (block == MAP_FAILED) return cudaErrorMemoryAllocation;
  used += bytes;
  blocks_[pinned ? 1 : 0].emplace(static_cast<const char*>(block), bytes);
  *data = block;
  return cudaSuccess;
}

// As CUDA's, it waits for all that may still use the block.
cudaError_t FakeMachine::deallocate(void* data, bool pinned) {
  run_all();
  auto& blocks = blocks_[pinned ? 1 : 0];
  const auto found = blocks.find(static_cast<const char*>(data));
  if (found == blocks.end()) {
    face.faults_of_the_caller.push_back("memory that does not live is freed");
    return cudaErrorInvalidValue;
  }
  munmap(data, found->second);
  used_[pinned ? 1 : 0] -= found->second;
  blocks.erase(found);
  return cudaSuccess;
}

bool FakeMachine::holds(const void* data, std::size_t bytes, bool pinned) const {
  const auto& blocks = blocks_[pinned ? 1 : 0];
  const auto* first = static_cast<const char*>(data);
  const auto after = blocks.upper_bound(first);
  if (after == blocks.begin()) return false;
  const auto& [begin, size] = *std::prev(after);
  return first + bytes <= begin + size;
}

cudaError_t FakeMachine::copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream) {
  const bool to_host = kind == cudaMemcpyDeviceToHost, from_host = kind == cudaMemcpyHostToDevice;
  const auto there = [=, this] { return holds(to, bytes, to_host) && holds(from, bytes, from_host); };
  if (!there()) face.faults_of_the_caller.push_back("a copy of memory that is not the device's, or not pinned");
  return enqueue(stream, [=, this] {
    if (there())
      std::memcpy(to, from, bytes);
    else
      face.faults_of_the_caller.push_back("a copy reaches memory after its end");
  });
}

std::shared_ptr<FakeStream> FakeMachine::find(cudaStream_t stream) { return find(streams, stream); }

cudaError_t FakeMachine::enqueue(cudaStream_t stream, Work work) {
  const auto on = find(stream);
  if (!on) return cudaErrorInvalidResourceHandle;
  if (const auto& capture = on->capture) {
    if (capture->invalid) return cudaErrorStreamCaptureInvalidated;
    capture->work.push_back(std::move(work));
    ++capture->clocks[on.get()][on.get()];
    return cudaSuccess;
  }
  on->waiting.push_back(std::move(work));
  ++on->added;
  ++face.waiting;
  if (!face.late) run(*on, on->added);
  return lost;
}

void FakeMachine::run(FakeStream& stream, std::uint64_t until) {
  while (stream.done < until && !stream.waiting.empty()) {
    const Work work = std::move(stream.waiting.front());
    stream.waiting.pop_front();
    --face.waiting;
    if (lost == cudaSuccess) work();
    ++stream.done;
  }
}

void FakeMachine::run_all() {
  for (const auto& [handle, stream] : streams) run(*stream, stream->added);
}

cudaError_t FakeMachine::refuse_in_capture(const std::shared_ptr<FakeCapture>& capture, cudaError_t status) {
  capture->invalid = true;
  return status;
}

cudaError_t FakeMachine::record(cudaEvent_t handle, cudaStream_t stream) {
  const auto event = find(events, handle);
  const auto on = find(stream);
  if (!event || !on) return cudaErrorInvalidResourceHandle;
  event->capture = on->capture;
  event->stream = on;
  event->position = on->added;
  if (!on->capture) return cudaSuccess;
  if (on->capture->invalid) return cudaErrorStreamCaptureInvalidated;
  event->clock = on->capture->clocks[on.get()];
  return cudaSuccess;
}

cudaError_t FakeMachine::hold(cudaStream_t stream, cudaEvent_t handle) {
  const auto event = find(events, handle);
  const auto on = find(stream);
  if (!event || !on) return cudaErrorInvalidResourceHandle;
  if (!event->stream) return cudaSuccess;
  if (event->capture) {
    if (event->capture->ended) return cudaErrorCapturedEvent;
    if (on->capture && on->capture != event->capture)
      return refuse_in_capture(on->capture, cudaErrorStreamCaptureMerge);
    on->capture = event->capture;
    merge(on->capture->clocks[on.get()], event->clock);
    return cudaSuccess;
  }
  if (on->capture) return refuse_in_capture(on->capture, cudaErrorStreamCaptureIsolation);
  return enqueue(stream, [this, marked = event->stream, position = event->position] { run(*marked, position); });
}

cudaError_t FakeMachine::begin_capture(cudaStream_t stream) {
  const auto on = find(stream);
  if (!on) return cudaErrorInvalidResourceHandle;
  if (on->capture) return cudaErrorIllegalState;
  on->capture = std::make_shared<FakeCapture>();
  on->capture->origin = on.get();
  on->capture->clocks[on.get()];
  return cudaSuccess;
}

cudaError_t FakeMachine::end_capture(cudaStream_t stream, cudaGraph_t* graph) {
  *graph = nullptr;
  const auto on = find(stream);
  if (!on) return cudaErrorInvalidResourceHandle;
  const std::shared_ptr<FakeCapture> capture = on->capture;
  if (!capture || capture->origin != on.get()) return cudaErrorIllegalState;
  capture->ended = true;
  for (const auto& [handle, one] : streams)
    if (one->capture == capture) one->capture = nullptr;
  if (capture->invalid) return cudaErrorStreamCaptureInvalidated;
  Clock& joined = capture->clocks[on.get()];
  for (const auto& [one, clock] : capture->clocks)
    if (clock.contains(one) && joined[one] < clock.at(one)) return cudaErrorStreamCaptureUnjoined;
  auto made = std::make_shared<FakeGraph>();
  made->work = std::move(capture->work);
  *graph = add<FakeGraph, cudaGraph_t>(graphs, std::move(made));
  return cudaSuccess;
}

cudaError_t FakeMachine::launch(const void* function, std::int64_t blocks, int threads, std::size_t shared_bytes,
                                cudaStream_t stream) {
  const auto kernel = kernels.find(function);
  if (kernel == kernels.end()) return cudaErrorInvalidDeviceFunction;
  if (!face.has_kernels) return cudaErrorNoKernelImageForDevice;
  if (blocks < 1 || blocks > most_blocks || threads < 1 || threads > most_threads) return cudaErrorInvalidConfiguration;
  if (shared_bytes > std::min(kernel->second.most_shared, most_shared_bytes)) return cudaErrorInvalidValue;
  face.launches.push_back({kernel->second.name, blocks, threads, shared_bytes});
  return enqueue(stream, [this] { failure("kernel"); });
}

FakeCuda::Live FakeCuda::live() const {
  FakeMachine& machine = fake_machine();
  const std::lock_guard lock(machine.mutex);
  const auto count = [](const auto& all) { return static_cast<int>(all.size()); };
  std::set<const FakeCapture*> captures;
  for (const auto& [handle, stream] : machine.streams)
    if (stream->capture) captures.insert(stream->capture.get());
  return {machine.count_blocks(false),
          machine.count_blocks(true),
          count(machine.streams),
          count(machine.events),
          count(captures),
          count(machine.graphs),
          count(machine.executables)};
}

void FakeCuda::fail(std::string call, cudaError_t status, int at, int times) {
  failing_call = std::move(call);
  failing_status = status;
  failing_at = at;
  failing_times = times;
}

void FakeCuda::reset() {
  FakeMachine& machine = fake_machine();
  const std::lock_guard lock(machine.mutex);
  machine.lost = cudaSuccess;
  *this = FakeCuda();
  cudaGetLastError();
}

FakeCuda& fake_cuda() { return fake_machine().face; }

}  // namespace weft::test
