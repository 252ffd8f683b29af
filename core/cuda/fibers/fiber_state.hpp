// What kernels on fibers find in their context when they run on a fiber device: its memory, and where their work goes.
#pragma once
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/cuda/fibers/fiber_stream.hpp"
#include "core/kernels/exec.hpp"

namespace weft::cuda::fibers {

/// Address space of its own, without access rights but between open() and close(), which nest. Safe to use from several
/// threads.
class ProtectedMemory {
 public:
  ProtectedMemory();
  ~ProtectedMemory();
  ProtectedMemory(const ProtectedMemory&) = delete;
  ProtectedMemory& operator=(const ProtectedMemory&) = delete;

  /// Null when the space is used up. Blocks are not given back.
  void* allocate(std::size_t bytes);
  void open();
  void close();

 private:
  void protect(int rights);
  std::mutex mutex_;
  char* base_;
  std::size_t used_ = 0;
  int depth_ = 0;
};

/// What queues of one fiber device share.
struct DeviceState {
  ProtectedMemory memory;
  /// Held while work runs, copies arrive or what follows is used: queues of several threads take turns.
  std::recursive_mutex mutex;
  /// Where work of the thread that records a step goes; null: all work runs.
  std::vector<std::function<void()>>* recording = nullptr;
  std::uint64_t recording_number = 0;
  std::thread::id recorder;
  /// Copies to the host that were asked for and not waited for.
  std::vector<std::function<void()>> downloads;
};

/// Work in order. The queue that computes runs it at once, on the caller's thread; another runs it on a thread of its own,
/// as late as may be: when something waits for it, or after a while. What forgets to wait then finds it not done.
class WorkQueue {
 public:
  enum class Runs : bool { at_once, late };
  explicit WorkQueue(Runs runs);
  /// Runs what is left.
  ~WorkQueue();
  WorkQueue(const WorkQueue&) = delete;
  WorkQueue& operator=(const WorkQueue&) = delete;

  void add(std::function<void()> work);
  /// How much was added.
  std::uint64_t added();
  bool done(std::uint64_t count);
  /// Blocks until the first `count` have run.
  void run(std::uint64_t count);
  bool late() const { return thread_.joinable(); }

 private:
  struct Item {
    std::function<void()> work;
    std::chrono::steady_clock::time_point due;
  };
  void run_late();
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Item> waiting_;
  std::uint64_t added_ = 0, done_ = 0, wanted_ = 0;
  bool stopping_ = false;
  std::thread thread_;
};

/// What the kernels of a fiber device find in ExecContext::backend.
class FiberState final : public BackendState, public FiberStream {
 public:
  FiberState(std::shared_ptr<DeviceState> device, WorkQueue::Runs runs)
      : device_(std::move(device)), queue_(std::make_shared<WorkQueue>(runs)) {}
  ~FiberState() override { queue_->run(queue_->added()); }
  DeviceState& device() { return *device_; }
  const std::shared_ptr<WorkQueue>& queue() { return queue_; }
  /// With the device's memory open, but not alone with it.
  void enqueue(std::function<void()> work) override;

 private:
  std::shared_ptr<DeviceState> device_;
  std::shared_ptr<WorkQueue> queue_;
};

/// The state of a context on a fiber device; null for a context on plain host memory.
FiberState* state_of(ExecContext& exec);
DeviceState* device_of(ExecContext& exec);

/// Has a device and its memory to itself for a while; does nothing for null.
class Access {
 public:
  explicit Access(DeviceState* device) : device_(device) {
    if (!device_) return;
    device_->mutex.lock();
    device_->memory.open();
  }
  ~Access() {
    if (!device_) return;
    device_->memory.close();
    device_->mutex.unlock();
  }
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;

 private:
  DeviceState* device_;
};

/// Whether this thread's work is being recorded.
bool records(DeviceState& device);

/// Gives `work` to the context's queue, which runs it alone with the device's memory, or records it. A context without a
/// fiber device runs it as it is.
void enqueue(ExecContext& exec, std::function<void()> work);

}  // namespace weft::cuda::fibers
