#include "core/cuda/cuda_device.hpp"

#include <optional>

#include "core/cuda/device_facts.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/memory.hpp"
#include "core/cuda/nccl/group.hpp"
#include "core/cuda/staging.hpp"
#include "core/cuda/state.hpp"
#include "core/cuda/stream.hpp"
#include "core/kernels/check.hpp"

namespace weft::cuda {
namespace {

class CudaEvent final : public Event {
 public:
  void record(ExecContext& queue) override {
    check(cudaEventRecord(event_.get(), stream_of(queue)), "cudaEventRecord");
  }
  void hold(ExecContext& queue) override {
    check(cudaStreamWaitEvent(stream_of(queue), event_.get(), 0), "cudaStreamWaitEvent");
  }
  bool passed() override {
    const cudaError_t status = cudaEventQuery(event_.get());
    if (status == cudaErrorNotReady) {
      forget_last_error();
      return false;
    }
    check(status, "cudaEventQuery");
    return true;
  }
  void wait() override { check(cudaEventSynchronize(event_.get()), "cudaEventSynchronize"); }

 private:
  EventHandle event_ = cuda::make_event();
};

class CudaGraph final : public WorkGraph {
 public:
  CudaGraph(GraphExecHandle graph, cudaStream_t stream, std::shared_ptr<void> pool)
      : pool_(std::move(pool)), graph_(std::move(graph)), stream_(stream) {}
  ~CudaGraph() override { ignore(cudaStreamSynchronize(stream_)); }
  void launch() override { check(cudaGraphLaunch(graph_.get(), stream_), "cudaGraphLaunch"); }

 private:
  std::shared_ptr<void> pool_;
  GraphExecHandle graph_;
  cudaStream_t stream_;
};

std::string nccl_text(const std::vector<std::filesystem::path>& folders) {
  try {
    return open_nccl(folders).description();
  } catch (const Error& error) {
    return fmt::format("no NCCL: {}", error.what());
  }
}

/// What a stream is given between the construction and end() becomes a graph.
class Capture {
 public:
  explicit Capture(cudaStream_t stream) : stream_(stream) {
    // Relaxed: the allocator may ask for memory, and other threads go on.
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
  }
  /// Drops what was recorded.
  ~Capture() {
    if (stream_) ignore(end_capture().second);
  }
  Capture(const Capture&) = delete;
  Capture& operator=(const Capture&) = delete;
  GraphHandle end() {
    auto [graph, status] = end_capture();
    check(status, "cudaStreamEndCapture");
    return std::move(graph);
  }

 private:
  std::pair<GraphHandle, cudaError_t> end_capture() {
    cudaGraph_t graph = nullptr;
    const cudaError_t status = cudaStreamEndCapture(std::exchange(stream_, nullptr), &graph);
    return {GraphHandle(graph), status};
  }

  cudaStream_t stream_;
};

/// A stream with the staging of its copies.
class Queue final : public ExecContext {
 public:
  Queue(const KernelTable& kernels, Allocator& memory, Allocator& pinned, int threads, int priority)
      : ExecContext(kernels, memory, threads), stream_(make_stream(priority)), staging(pinned) {
    stream.handle = stream_.get();
  }
  ~Queue() override { ignore(cudaStreamSynchronize(stream_.get())); }

 private:
  StreamHandle stream_;

 public:
  Staging staging;
};

Queue& queue_of(ExecContext& exec) {
  auto* queue = dynamic_cast<Queue*>(&exec);
  WEFT_CHECK(queue, "the context is no queue of a CUDA device");
  return *queue;
}

/// A replay would read and write what the host has there by then.
void check_not_recorded(const ExecContext& exec) {
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(stream_of(exec), &status), "cudaStreamIsCapturing");
  WEFT_CHECK(status == cudaStreamCaptureStatusNone, "a copy from or to the host in a recorded step");
}

void upload(ExecContext& exec, View host, MutView device) {
  check_transfer(host, device);
  check_not_recorded(exec);
  queue_of(exec).staging.upload(host.data, device.data, host.bytes(), stream_of(exec));
}

void upload_later(ExecContext& exec, View host, MutView device) {
  check_transfer(host, device);
  check_not_recorded(exec);
  if (host.bytes() == 0) return;
  check(cudaMemcpyAsync(device.data, host.data, host.bytes(), cudaMemcpyHostToDevice, stream_of(exec)),
        "cudaMemcpyAsync");
}

void download(ExecContext& exec, View device, MutView host) {
  check_transfer(device, host);
  check_not_recorded(exec);
  queue_of(exec).staging.download(device.data, host.data, host.bytes(), stream_of(exec));
}

void download_later(ExecContext& exec, View device, MutView host) {
  check_transfer(device, host);
  check_not_recorded(exec);
  if (host.bytes() == 0) return;
  check(cudaMemcpyAsync(host.data, device.data, host.bytes(), cudaMemcpyDeviceToHost, stream_of(exec)),
        "cudaMemcpyAsync");
}

void copy(ExecContext& exec, View from, MutView to) {
  check_transfer(from, to);
  if (from.bytes() == 0) return;
  check(cudaMemcpyAsync(to.data, from.data, from.bytes(), cudaMemcpyDeviceToDevice, stream_of(exec)),
        "cudaMemcpyAsync");
}

class CudaDevice final : public Device {
 public:
  explicit CudaDevice(const DeviceOptions& options) : options_(options) {
    check(cudaSetDevice(options.index), "cudaSetDevice");
    facts_ = facts_of(options.index);
    memory_ = make_caching_allocator(make_device_memory(options.index), {options.memory_limit});
    pinned_ = make_caching_allocator(make_pinned_memory());
    bind(kernels_, kernel_abi_hash());
    if (!options_.products.device.empty() && options_.products.device != facts_.name) {
      facts_.warnings.push_back(fmt::format("the table of products is not used: it was measured on {}, and this is {}",
                                            options_.products.device, facts_.name));
      options_.products = {};
    }
    auto queue = make_bare_queue(0);
    try_a_kernel(*queue);
    queue->backend = make_state(options_);
    exec_ = std::move(queue);
    if (const std::string why = state_of(*exec_).products().why_no_table(); !why.empty())
      facts_.warnings.push_back("the table of products is not used: " + why);
    facts_.products = state_of(*exec_).products().rule();
    for (const CudaState::LibraryUse& use : state_of(*exec_).libraries())
      facts_.libraries.push_back(
          fmt::format("{} by {}", use.purpose, use.used ? use.details : "Weft's own kernels: " + use.details));
    facts_.libraries.push_back(nccl_text(options.library_folders));
  }

  ~CudaDevice() override { ignore(cudaDeviceSynchronize()); }

  const DeviceFacts& facts() const override { return facts_; }
  void enter_thread() override { check(cudaSetDevice(options_.index), "cudaSetDevice"); }
  ExecContext& exec() override { return *exec_; }
  Allocator& host_memory() override { return *pinned_; }

  // What others do beside the queue that computes is waited for: its kernels take the first blocks that get free.
  std::unique_ptr<ExecContext> make_queue() override {
    int least = 0, greatest = 0;
    check(cudaDeviceGetStreamPriorityRange(&least, &greatest), "cudaDeviceGetStreamPriorityRange");
    return make_queue(greatest);
  }

  std::unique_ptr<Event> make_event() override { return std::make_unique<CudaEvent>(); }
  bool asynchronous() const override { return true; }

  std::unique_ptr<WorkGraph> capture(const std::function<void()>& work) override {
    const cudaStream_t stream = stream_of(*exec_);
    exec_->drop_scratch();
    // The pool needs as much as a step that is not recorded, whose blocks would lie idle beside it.
    check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
    memory_->release_unused();
    Capture capture(stream);
    Recording recording(*this);
    work();
    const GraphHandle graph = capture.end();
    std::shared_ptr<void> pool = recording.end();
    cudaGraphExec_t ready = nullptr;
    check(cudaGraphInstantiate(&ready, graph.get(), 0), "cudaGraphInstantiate");
    return std::make_unique<CudaGraph>(GraphExecHandle(ready), stream, std::move(pool));
  }
  std::uint64_t recording() const override { return recording_; }

  ProductTable measured_products() override {
    ProductTable table = state_of(*exec_).products().measured();
    table.device = facts_.name;
    return table;
  }

  DeviceLinks& links() override {
    if (!links_)
      links_.emplace(std::make_shared<const Nccl>(open_nccl(options_.library_folders)), [this] { enter_thread(); });
    return *links_;
  }

 private:
  /// The memory and the number of a recording under way.
  class Recording {
   public:
    explicit Recording(CudaDevice& device) : device_(&device) {
      device.memory_->begin_pool();
      device.recording_ = ++device.recordings_;
    }
    ~Recording() {
      if (device_) end();
    }
    Recording(const Recording&) = delete;
    Recording& operator=(const Recording&) = delete;
    /// The memory's owner.
    std::shared_ptr<void> end() {
      CudaDevice& device = *std::exchange(device_, nullptr);
      device.recording_ = 0;
      device.exec_->drop_scratch();
      return device.memory_->end_pool();
    }

   private:
    CudaDevice* device_;
  };

  /// For own kernels and copies.
  std::unique_ptr<Queue> make_bare_queue(int priority) {
    return std::make_unique<Queue>(kernels_, *memory_, *pinned_, options_.threads, priority);
  }

  std::unique_ptr<ExecContext> make_queue(int priority) {
    auto queue = make_bare_queue(priority);
    queue->backend = make_state(options_);
    return queue;
  }

  // A device of another architecture than the kernels' takes everything but them.
  void try_a_kernel(Queue& queue) {
    constexpr std::size_t bytes = 64;
    try {
      void* data = queue.scratch(bytes);
      kernels_.elementwise.fill(queue, 1.0f, MutView(data, {bytes / sizeof(float)}, DType::f32, memory_->device()));
      check(cudaStreamSynchronize(stream_of(queue)), "cudaStreamSynchronize");
    } catch (const Error& error) {
      fail("{} cannot run Weft's kernels, which were compiled for {}: {}", facts_.name, WEFT_CUDA_ARCHITECTURES,
           error.what());
    }
  }

  DeviceOptions options_;
  DeviceFacts facts_;
  std::unique_ptr<CachingAllocator> memory_;
  std::unique_ptr<CachingAllocator> pinned_;
  KernelTable kernels_;
  std::unique_ptr<ExecContext> exec_;
  std::optional<NcclLinks> links_;
  std::uint64_t recordings_ = 0;
  std::uint64_t recording_ = 0;  ///< under way; 0: none
};

class CudaModule final : public BackendModule {
 public:
  int device_count() override { return cuda::device_count(); }
  std::vector<DeviceSummary> describe() override { return summaries(); }
  std::unique_ptr<Device> open(const DeviceOptions& options) override { return make_device(options); }
};

}  // namespace

std::unique_ptr<Device> make_device(const DeviceOptions& options) { return std::make_unique<CudaDevice>(options); }

void bind_transfer(KernelTable& table) {
  table.transfer.upload.bind(upload);
  table.transfer.upload_later.bind(upload_later);
  table.transfer.download.bind(download);
  table.transfer.download_later.bind(download_later);
  table.transfer.copy.bind(copy);
}

}  // namespace weft::cuda

extern "C" weft::BackendModule* weft_backend(std::uint64_t abi_hash) {
  static weft::cuda::CudaModule module;
  return abi_hash == weft::kernel_abi_hash() ? &module : nullptr;
}
