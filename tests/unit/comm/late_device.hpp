// A device whose queues run nothing before somebody waits for it: what a missing wait would let pass on a fast device is
// always wrong here. Its memory is the host's, so that tests can look.
#pragma once
#include <deque>
#include <functional>
#include <memory>
#include <mutex>

#include "core/kernels/device.hpp"
#include "core/kernels/table.hpp"
#include "core/tensor/caching_allocator.hpp"

namespace weft::test {

/// Shared by all queues: what runs holds it.
inline std::recursive_mutex& late_mutex() {
  static std::recursive_mutex mutex;
  return mutex;
}

class LateQueue final : public ExecContext {
 public:
  using ExecContext::ExecContext;

  void give(std::function<void()> work) {
    const std::lock_guard lock(late_mutex());
    work_.push_back(std::move(work));
  }
  std::size_t given() const {
    const std::lock_guard lock(late_mutex());
    return work_.size();
  }
  void run_to(std::size_t mark) {
    const std::lock_guard lock(late_mutex());
    while (done_ < mark) work_[done_++]();
  }

 private:
  std::deque<std::function<void()>> work_;
  std::size_t done_ = 0;
};

inline LateQueue& late(ExecContext& exec) { return dynamic_cast<LateQueue&>(exec); }

class LateEvent final : public Event {
 public:
  explicit LateEvent(const bool& broken) : broken_(broken) {}
  void record(ExecContext& queue) override {
    queue_ = &late(queue);
    mark_ = queue_->given();
  }
  void hold(ExecContext& queue) override {
    late(queue).give([from = queue_, mark = mark_] { from->run_to(mark); });
  }
  bool passed() override {
    wait();
    return true;
  }
  void wait() override {
    if (broken_) fail("the device fell off the bus");
    if (queue_) queue_->run_to(mark_);
  }

 private:
  const bool& broken_;
  LateQueue* queue_ = nullptr;
  std::size_t mark_ = 0;
};

class LateDevice final : public Device {
 public:
  LateDevice()
      : memory_(make_caching_allocator(std::make_unique<Memory>())), host_(make_caching_allocator(make_host_memory())) {
    const auto later = [](ExecContext& exec, View from, MutView to) {
      late(exec).give(
          [from, to] { std::copy_n(static_cast<const char*>(from.data), from.bytes(), static_cast<char*>(to.data)); });
    };
    table_.transfer.upload_later.bind(later);
    table_.transfer.download_later.bind(later);
    table_.transfer.copy.bind(later);
    exec_ = make_queue();
  }

  const DeviceFacts& facts() const override { return facts_; }
  void enter_thread() override {}
  ExecContext& exec() override { return *exec_; }
  Allocator& host_memory() override { return *host_; }
  std::unique_ptr<ExecContext> make_queue() override { return std::make_unique<LateQueue>(table_, *memory_, 1); }
  std::unique_ptr<Event> make_event() override { return std::make_unique<LateEvent>(broken); }
  bool asynchronous() const override { return true; }
  std::unique_ptr<WorkGraph> capture(const std::function<void()>&) override { return nullptr; }

  bool broken = false;  ///< every wait throws

 private:
  class Memory final : public RawMemory {
   public:
    DeviceId device() const override { return {DeviceKind::cuda, 0}; }
    void* allocate(std::size_t bytes) override { return host_->allocate(bytes); }
    void deallocate(void* data, std::size_t bytes) noexcept override { host_->deallocate(data, bytes); }

   private:
    std::unique_ptr<RawMemory> host_ = make_host_memory();
  };

  KernelTable table_;
  std::unique_ptr<CachingAllocator> memory_, host_;
  std::unique_ptr<ExecContext> exec_;
  DeviceFacts facts_;
};

}  // namespace weft::test
