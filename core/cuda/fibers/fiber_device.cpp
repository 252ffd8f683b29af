#include "core/cuda/fibers/fiber_device.hpp"

#include <cstring>
#include <optional>

#include "core/cuda/fibers/fiber_state.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/nccl/group.hpp"
#include "core/kernels/check.hpp"
#include "core/tensor/caching_allocator.hpp"

namespace weft::cuda::fibers {
namespace {

constexpr unsigned char unread = 0xff;  // eight of them are a NaN
/// Passes messages between processes of one machine; NCCL itself could not read this device's memory.
constexpr std::string_view stand_in_nccl = "libweft_fiber_nccl.so";

class DeviceMemory final : public RawMemory {
 public:
  explicit DeviceMemory(std::shared_ptr<DeviceState> device) : device_(std::move(device)) {}
  DeviceId device() const override { return {DeviceKind::cuda, 0}; }
  void* allocate(std::size_t bytes) override { return device_->memory.allocate(bytes); }
  void deallocate(void*, std::size_t) noexcept override {}

 private:
  std::shared_ptr<DeviceState> device_;
};

DeviceState& alone_on(ExecContext& exec) {
  DeviceState* device = device_of(exec);
  WEFT_CHECK(device, "a copy from or to a device that is none");
  WEFT_CHECK(!records(*device), "a copy from or to the host in a recorded step");
  return *device;
}

/// Waits for the queue, and copies.
void copy_now(ExecContext& exec, const View& from, const MutView& to) {
  check_transfer(from, to);
  if (!device_of(exec)) {
    if (from.bytes() > 0) std::memcpy(to.data, from.data, from.bytes());
    return;
  }
  alone_on(exec);
  enqueue(exec, [=] {
    if (from.bytes() > 0) std::memcpy(to.data, from.data, from.bytes());
  });
  WorkQueue& queue = *state_of(exec)->queue();
  queue.run(queue.added());
}

void upload(ExecContext& exec, View host, MutView device) { copy_now(exec, host, device); }
void download(ExecContext& exec, View device, MutView host) { copy_now(exec, device, host); }

void upload_later(ExecContext& exec, View host, MutView device) {
  if (!device_of(exec)) return copy_now(exec, host, device);
  check_transfer(host, device);
  alone_on(exec);
  if (host.bytes() > 0) enqueue(exec, [=] { std::memcpy(device.data, host.data, host.bytes()); });
}

// On the host when somebody waits, and not before.
void download_later(ExecContext& exec, View device, MutView host) {
  if (!device_of(exec)) return copy_now(exec, device, host);
  check_transfer(device, host);
  DeviceState& state = alone_on(exec);
  std::memset(host.data, unread, host.bytes());
  enqueue(exec, [state = &state, device, host] {
    const auto* from = static_cast<const char*>(device.data);
    std::vector<char> bytes(from, from + device.bytes());
    state->downloads.push_back(
        [bytes = std::move(bytes), to = host.data] { std::memcpy(to, bytes.data(), bytes.size()); });
  });
}

void copy_within(ExecContext& exec, View from, MutView to) {
  check_transfer(from, to);
  if (from.bytes() > 0) enqueue(exec, [from, to] { std::memcpy(to.data, from.data, from.bytes()); });
}

/// In a recording, which is one list, marks are nothing; as with CUDA, one is not waited for across a recording. Copies to the host arrive when somebody waits.
class FiberEvent final : public Event {
 public:
  explicit FiberEvent(std::shared_ptr<DeviceState> device) : device_(std::move(device)) {}
  void record(ExecContext& queue) override {
    queue_ = nullptr;
    recorded_ = records(*device_);
    if (recorded_) return;
    queue_ = state_of(queue)->queue();
    count_ = queue_->added();
    waited_ = false;
  }
  void hold(ExecContext& queue) override {
    const bool was_marked = recorded_ || queue_;
    WEFT_CHECK(!was_marked || recorded_ == records(*device_), "a mark is waited for across a recording");
    if (!queue_) return;
    state_of(queue)->queue()->add([marked = queue_, count = count_] { marked->run(count); });
  }
  bool passed() override {
    if (queue_ && !queue_->done(count_)) return false;
    wait();
    return true;
  }
  void wait() override {
    if (!queue_ || std::exchange(waited_, true)) return;
    queue_->run(count_);
    // Another thread may be in the midst of them.
    const std::lock_guard lock(device_->mutex);
    for (const auto& arrive : device_->downloads) arrive();
    device_->downloads.clear();
  }

 private:
  std::shared_ptr<DeviceState> device_;
  std::shared_ptr<WorkQueue> queue_;  ///< null: not marked, or in a recording
  std::uint64_t count_ = 0;
  bool recorded_ = false;
  bool waited_ = true;
};

class FiberGraph final : public WorkGraph {
 public:
  FiberGraph(std::vector<std::function<void()>> work, std::shared_ptr<void> pool)
      : work_(std::move(work)), pool_(std::move(pool)) {}
  void launch() override {
    for (const auto& one : work_) one();
  }

 private:
  std::vector<std::function<void()>> work_;
  std::shared_ptr<void> pool_;
};

class FiberDevice final : public Device {
 public:
  FiberDevice(const DeviceOptions& options, Late late)
      : late_(late), threads_(options.threads), library_folders_(options.library_folders),
        state_(std::make_shared<DeviceState>()),
        memory_(make_caching_allocator(std::make_unique<DeviceMemory>(state_), {options.memory_limit})),
        host_memory_(make_caching_allocator(make_host_memory())) {
    bind(kernels_, kernel_abi_hash());
    exec_ = make_queue(late != Late::others);
    facts_.name = "fibers";
    facts_.product_size = 8;
    facts_.libraries = {"products by plain loops"};
  }

  const DeviceFacts& facts() const override { return facts_; }
  void enter_thread() override {}
  ExecContext& exec() override { return *exec_; }
  Allocator& host_memory() override { return *host_memory_; }
  std::unique_ptr<ExecContext> make_queue() override { return make_queue(late_ != Late::computing); }
  std::unique_ptr<Event> make_event() override { return std::make_unique<FiberEvent>(state_); }
  bool asynchronous() const override { return true; }
  std::unique_ptr<WorkGraph> capture(const std::function<void()>& work) override {
    std::vector<std::function<void()>> recorded;
    const auto record_to = [this](std::vector<std::function<void()>>* place) {
      const std::lock_guard lock(state_->mutex);
      state_->recording = place;
      state_->recorder = std::this_thread::get_id();
      if (place) ++state_->recording_number;
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
    return std::make_unique<FiberGraph>(std::move(recorded), end_pool());
  }
  std::uint64_t recording() const override { return records(*state_) ? state_->recording_number : 0; }
  DeviceLinks& links() override {
    if (!links_)
      links_.emplace(std::make_shared<const Nccl>(open_nccl(library_folders_, stand_in_nccl)), std::function<void()>());
    return *links_;
  }

 private:
  std::unique_ptr<ExecContext> make_queue(bool late) {
    auto queue = std::make_unique<ExecContext>(kernels_, *memory_, threads_);
    auto state = std::make_unique<FiberState>(state_, late ? WorkQueue::Runs::late : WorkQueue::Runs::at_once);
    queue->stream.handle = static_cast<FiberStream*>(state.get());
    queue->backend = std::move(state);
    return queue;
  }

  Late late_;
  int threads_;
  std::vector<std::filesystem::path> library_folders_;
  std::shared_ptr<DeviceState> state_;
  std::unique_ptr<CachingAllocator> memory_;
  std::unique_ptr<CachingAllocator> host_memory_;
  KernelTable kernels_;
  std::unique_ptr<ExecContext> exec_;
  std::optional<NcclLinks> links_;
  DeviceFacts facts_;
};

class FiberModule final : public BackendModule {
 public:
  int device_count() override { return 1; }
  std::vector<DeviceSummary> describe() override { return {{"fibers", "none", 0, 0, {}}}; }
  std::unique_ptr<Device> open(const DeviceOptions& options) override { return make_device(options); }
};

}  // namespace

std::unique_ptr<Device> make_device(const DeviceOptions& options, Late late) {
  return std::make_unique<FiberDevice>(options, late);
}

}  // namespace weft::cuda::fibers

namespace weft::cuda {

void bind_transfer(KernelTable& table) {
  table.transfer.upload.bind(fibers::upload);
  table.transfer.upload_later.bind(fibers::upload_later);
  table.transfer.download.bind(fibers::download);
  table.transfer.download_later.bind(fibers::download_later);
  table.transfer.copy.bind(fibers::copy_within);
}

}  // namespace weft::cuda

extern "C" weft::BackendModule* weft_backend(std::uint64_t abi_hash) {
  static weft::cuda::fibers::FiberModule module;
  return abi_hash == weft::kernel_abi_hash() ? &module : nullptr;
}
