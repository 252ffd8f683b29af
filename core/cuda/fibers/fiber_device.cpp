#include "core/cuda/fibers/fiber_device.hpp"

#include <cstring>

#include "core/cuda/fibers/fiber_state.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/kernels/check.hpp"
#include "core/tensor/caching_allocator.hpp"

namespace weft::cuda::fibers {
namespace {

constexpr unsigned char unread = 0xff;  // eight of them are a NaN

class DeviceMemory final : public RawMemory {
 public:
  explicit DeviceMemory(std::shared_ptr<DeviceState> device) : device_(std::move(device)) {}
  DeviceId device() const override { return {DeviceKind::cuda, 0}; }
  void* allocate(std::size_t bytes) override { return device_->memory.allocate(bytes); }
  void deallocate(void*, std::size_t) noexcept override {}

 private:
  std::shared_ptr<DeviceState> device_;
};

void copy(ExecContext& exec, const View& from, const MutView& to) {
  check_transfer(from, to);
  DeviceState* device = device_of(exec);
  const Access access(device);
  WEFT_CHECK(!recording_of(device), "a copy from or to the host in a recorded step");
  if (from.bytes() > 0) std::memcpy(to.data, from.data, from.bytes());
}

void upload(ExecContext& exec, View host, MutView device) { copy(exec, host, device); }
void download(ExecContext& exec, View device, MutView host) { copy(exec, device, host); }

void download_later(ExecContext& exec, View device, MutView host) {
  DeviceState* state = device_of(exec);
  if (!state) return copy(exec, device, host);
  check_transfer(device, host);
  std::vector<char> bytes(device.bytes());
  copy(exec, device, MutView(bytes.data(), {static_cast<std::int64_t>(bytes.size())}, DType::u8));
  std::memset(host.data, unread, host.bytes());
  const std::lock_guard lock(state->mutex);
  state->downloads.push_back(
      [bytes = std::move(bytes), to = host.data] { std::memcpy(to, bytes.data(), bytes.size()); });
}

void copy_within(ExecContext& exec, View from, MutView to) {
  check_transfer(from, to);
  if (from.bytes() > 0) enqueue(exec, [from, to] { std::memcpy(to.data, from.data, from.bytes()); });
}

/// Work is done as soon as it is given; copies to the host arrive when somebody waits.
class FiberEvent final : public Event {
 public:
  explicit FiberEvent(std::shared_ptr<DeviceState> device) : device_(std::move(device)) {}
  void record(ExecContext&) override { waited_ = false; }
  void hold(ExecContext&) override {}
  bool passed() override {
    wait();
    return true;
  }
  void wait() override {
    if (std::exchange(waited_, true)) return;
    // Another thread may be in the midst of them.
    const std::lock_guard lock(device_->mutex);
    for (const auto& arrive : device_->downloads) arrive();
    device_->downloads.clear();
  }

 private:
  std::shared_ptr<DeviceState> device_;
  bool waited_ = true;
};

class FiberGraph final : public WorkGraph {
 public:
  FiberGraph(std::shared_ptr<DeviceState> device, std::vector<std::function<void()>> work, std::shared_ptr<void> pool)
      : device_(std::move(device)), work_(std::move(work)), pool_(std::move(pool)) {}
  void launch() override {
    const Access access(device_.get());
    for (const auto& one : work_) one();
  }

 private:
  std::shared_ptr<DeviceState> device_;
  std::vector<std::function<void()>> work_;
  std::shared_ptr<void> pool_;
};

class FiberDevice final : public Device {
 public:
  explicit FiberDevice(const DeviceOptions& options)
      : threads_(options.threads), state_(std::make_shared<DeviceState>()),
        memory_(make_caching_allocator(std::make_unique<DeviceMemory>(state_), {options.memory_limit})),
        host_memory_(make_caching_allocator(make_host_memory())) {
    bind(kernels_, kernel_abi_hash());
    exec_ = make_queue();
    facts_.name = "fibers";
    facts_.product_size = 8;
    facts_.libraries = {"products by plain loops"};
  }

  const DeviceFacts& facts() const override { return facts_; }
  void enter_thread() override {}
  ExecContext& exec() override { return *exec_; }
  Allocator& host_memory() override { return *host_memory_; }
  std::unique_ptr<ExecContext> make_queue() override {
    auto queue = std::make_unique<ExecContext>(kernels_, *memory_, threads_);
    queue->backend = std::make_unique<FiberState>(state_);
    return queue;
  }
  std::unique_ptr<Event> make_event() override { return std::make_unique<FiberEvent>(state_); }
  bool asynchronous() const override { return true; }
  std::unique_ptr<WorkGraph> capture(const std::function<void()>& work) override {
    std::vector<std::function<void()>> recorded;
    const auto record_to = [this](std::vector<std::function<void()>>* place) {
      const std::lock_guard lock(state_->mutex);
      state_->recording = place;
      state_->recorder = std::this_thread::get_id();
    };
    exec_->drop_scratch();
    memory_->begin_pool();
    record_to(&recorded);
    const auto end_pool = [&] {
      record_to(nullptr);
      exec_->drop_scratch();
      return memory_->end_pool();
    };
    try {
      work();
    } catch (...) {
      end_pool();
      throw;
    }
    return std::make_unique<FiberGraph>(state_, std::move(recorded), end_pool());
  }

 private:
  int threads_;
  std::shared_ptr<DeviceState> state_;
  std::unique_ptr<CachingAllocator> memory_;
  std::unique_ptr<CachingAllocator> host_memory_;
  KernelTable kernels_;
  std::unique_ptr<ExecContext> exec_;
  DeviceFacts facts_;
};

class FiberModule final : public BackendModule {
 public:
  int device_count() override { return 1; }
  std::vector<DeviceSummary> describe() override { return {{"fibers", "none", 0, 0, {}}}; }
  std::unique_ptr<Device> open(const DeviceOptions& options) override { return make_device(options); }
};

}  // namespace

std::unique_ptr<Device> make_device(const DeviceOptions& options) { return std::make_unique<FiberDevice>(options); }

}  // namespace weft::cuda::fibers

namespace weft::cuda {

void bind_transfer(KernelTable& table) {
  table.transfer.upload.bind(fibers::upload);
  table.transfer.upload_later.bind(fibers::upload);
  table.transfer.download.bind(fibers::download);
  table.transfer.download_later.bind(fibers::download_later);
  table.transfer.copy.bind(fibers::copy_within);
}

}  // namespace weft::cuda

extern "C" weft::BackendModule* weft_backend(std::uint64_t abi_hash) {
  static weft::cuda::fibers::FiberModule module;
  return abi_hash == weft::kernel_abi_hash() ? &module : nullptr;
}
