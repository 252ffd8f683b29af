#include "core/cuda/cuda_device.hpp"

#include <array>
#include <cstring>
#include <optional>

#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/nccl/group.hpp"
#include "core/cuda/staging.hpp"
#include "core/cuda/state.hpp"
#include "core/cuda/stream.hpp"
#include "core/kernels/check.hpp"
#include "core/tensor/caching_allocator.hpp"

namespace weft::cuda {
namespace {

class DeviceMemory final : public RawMemory {
 public:
  explicit DeviceMemory(int index) : index_(index) {}
  DeviceId device() const override { return {DeviceKind::cuda, static_cast<std::int8_t>(index_)}; }
  void* allocate(std::size_t bytes) override {
    void* data = nullptr;
    const cudaError_t status = cudaMalloc(&data, bytes);
    if (status == cudaSuccess) return data;
    if (status != cudaErrorMemoryAllocation) check(status, "cudaMalloc");
    cudaGetLastError();  // it is not the next launch's
    return nullptr;
  }
  void deallocate(void* data, std::size_t) noexcept override { cudaFree(data); }

 private:
  int index_;
};

class PinnedMemory final : public RawMemory {
 public:
  DeviceId device() const override { return {}; }
  void* allocate(std::size_t bytes) override {
    void* data = nullptr;
    const cudaError_t status = cudaHostAlloc(&data, bytes, cudaHostAllocDefault);
    if (status == cudaSuccess) return data;
    if (status != cudaErrorMemoryAllocation) check(status, "cudaHostAlloc");
    cudaGetLastError();
    return nullptr;
  }
  void deallocate(void* data, std::size_t) noexcept override { cudaFreeHost(data); }
};

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
      cudaGetLastError();  // it is not the next launch's
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
  ~CudaGraph() override { static_cast<void>(cudaStreamSynchronize(stream_)); }
  void launch() override { check(cudaGraphLaunch(graph_.get(), stream_), "cudaGraphLaunch"); }

 private:
  std::shared_ptr<void> pool_;
  GraphExecHandle graph_;
  cudaStream_t stream_;
};

std::string name_of(const cudaDeviceProp& properties) {
  return fmt::format("{}, sm_{}{}", properties.name, properties.major, properties.minor);
}

std::string pci_of(int index) {
  std::array<char, 32> pci{};
  check(cudaDeviceGetPCIBusId(pci.data(), pci.size(), index), "cudaDeviceGetPCIBusId");
  return pci.data();
}

std::string nccl_text(const std::vector<std::filesystem::path>& folders) {
  try {
    return open_nccl(folders).description();
  } catch (const Error& error) {
    return fmt::format("no NCCL: {}", error.what());
  }
}

std::vector<DeviceSummary> summaries() {
  const int count = device_count();
  std::vector<DeviceSummary> all;
  for (int index = 0; index < count; ++index) {
    cudaDeviceProp properties{};
    check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
    DeviceSummary one{name_of(properties), pci_of(index), 0, 0, {}};
    check(cudaSetDevice(index), "cudaSetDevice");
    check(cudaMemGetInfo(&one.free_bytes, &one.memory_bytes), "cudaMemGetInfo");
    for (int other = 0; other < count; ++other) {
      int reaches = 0;
      if (other != index) check(cudaDeviceCanAccessPeer(&reaches, index, other), "cudaDeviceCanAccessPeer");
      if (reaches != 0) one.peers.push_back(other);
    }
    all.push_back(std::move(one));
  }
  return all;
}

DeviceFacts facts_of(int index) {
  cudaDeviceProp properties{};
  check(cudaGetDeviceProperties(&properties, index), "cudaGetDeviceProperties");
  int driver = 0, runtime = 0;
  check(cudaDriverGetVersion(&driver), "cudaDriverGetVersion");
  check(cudaRuntimeGetVersion(&runtime), "cudaRuntimeGetVersion");
  const auto version = [](int number) { return fmt::format("{}.{}", number / 1000, number % 1000 / 10); };
  DeviceFacts facts;
  facts.name = name_of(properties);
  facts.fast_bf16 = properties.major >= 8;
  facts.memory_bytes = properties.totalGlobalMem;
  facts.pci = pci_of(index);
  facts.product_size = 4096;
  facts.libraries = {fmt::format("driver for CUDA {}, runtime {}", version(driver), version(runtime))};
  return facts;
}

/// A stream with the staging of its copies.
class Queue final : public ExecContext {
 public:
  Queue(const KernelTable& kernels, Allocator& memory, Allocator& pinned, int threads, int priority)
      : ExecContext(kernels, memory, threads), stream_(make_stream(priority)), staging(pinned) {
    stream.handle = stream_.get();
  }
  ~Queue() override { static_cast<void>(cudaStreamSynchronize(stream_.get())); }

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

void upload(ExecContext& exec, View host, MutView device) {
  check_transfer(host, device);
  queue_of(exec).staging.upload(host.data, device.data, host.bytes(), stream_of(exec));
}

void upload_later(ExecContext& exec, View host, MutView device) {
  check_transfer(host, device);
  if (host.bytes() == 0) return;
  check(cudaMemcpyAsync(device.data, host.data, host.bytes(), cudaMemcpyHostToDevice, stream_of(exec)),
        "cudaMemcpyAsync");
}

void download(ExecContext& exec, View device, MutView host) {
  check_transfer(device, host);
  queue_of(exec).staging.download(device.data, host.data, host.bytes(), stream_of(exec));
}

void download_later(ExecContext& exec, View device, MutView host) {
  check_transfer(device, host);
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
    memory_ = make_caching_allocator(std::make_unique<DeviceMemory>(options.index), {options.memory_limit});
    pinned_ = make_caching_allocator(std::make_unique<PinnedMemory>());
    bind(kernels_, kernel_abi_hash());
    if (!options_.products.device.empty() && options_.products.device != facts_.name) {
      facts_.warnings.push_back(fmt::format("the table of products is not used: it was measured on {}, and this is {}",
                                            options_.products.device, facts_.name));
      options_.products = {};
    }
    exec_ = make_queue(0);
    if (const std::string why = state_of(*exec_).products().why_no_table(); !why.empty())
      facts_.warnings.push_back("the table of products is not used: " + why);
    facts_.products = state_of(*exec_).products().rule();
    for (const CudaState::LibraryUse& use : state_of(*exec_).libraries())
      facts_.libraries.push_back(
          fmt::format("{} by {}", use.purpose, use.used ? use.details : "Weft's own kernels: " + use.details));
    facts_.libraries.push_back(nccl_text(options.library_folders));
    try_a_kernel();
  }

  ~CudaDevice() override { static_cast<void>(cudaDeviceSynchronize()); }

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
    cudaGraph_t recorded = nullptr;
    // Relaxed: the allocator may ask for memory, and other threads go on.
    check(cudaStreamBeginCapture(stream, cudaStreamCaptureModeRelaxed), "cudaStreamBeginCapture");
    memory_->begin_pool();
    recording_ = ++recordings_;
    const auto end_pool = [&] {
      recording_ = 0;
      exec_->drop_scratch();
      return memory_->end_pool();
    };
    try {
      work();
    } catch (...) {
      cudaStreamEndCapture(stream, &recorded);
      const GraphHandle dropped(recorded, &cudaGraphDestroy);
      end_pool();
      throw;
    }
    const cudaError_t ended = cudaStreamEndCapture(stream, &recorded);
    const GraphHandle graph(recorded, &cudaGraphDestroy);
    std::shared_ptr<void> pool = end_pool();
    check(ended, "cudaStreamEndCapture");
    cudaGraphExec_t ready = nullptr;
    check(cudaGraphInstantiate(&ready, graph.get(), 0), "cudaGraphInstantiate");
    return std::make_unique<CudaGraph>(GraphExecHandle(ready, &cudaGraphExecDestroy), stream, std::move(pool));
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
  std::unique_ptr<ExecContext> make_queue(int priority) {
    auto queue = std::make_unique<Queue>(kernels_, *memory_, *pinned_, options_.threads, priority);
    queue->backend = make_state(options_);
    return queue;
  }

  // A device of another architecture than the kernels' takes everything but them.
  void try_a_kernel() {
    constexpr std::size_t bytes = 64;
    void* data = memory_->allocate(bytes, MemoryUse::workspace);
    try {
      kernels_.elementwise.fill(*exec_, 1.0f, MutView(data, {bytes / sizeof(float)}, DType::f32, memory_->device()));
      check(cudaStreamSynchronize(stream_of(*exec_)), "cudaStreamSynchronize");
    } catch (const Error& error) {
      fail("{} cannot run Weft's kernels: {}", facts_.name, error.what());
    }
    memory_->deallocate(data, bytes, MemoryUse::workspace);
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

int device_count() {
  int count = 0;
  const cudaError_t status = cudaGetDeviceCount(&count);
  if (status == cudaErrorInsufficientDriver || status == cudaErrorInitializationError)
    fail("no NVIDIA driver for CUDA {} was found ({})", CUDART_VERSION / 1000, cudaGetErrorString(status));
  if (status == cudaErrorNoDevice || (status == cudaSuccess && count == 0))
    fail("the driver shows this process no GPU (is CUDA_VISIBLE_DEVICES empty?)");
  check(status, "cudaGetDeviceCount");
  return count;
}

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
