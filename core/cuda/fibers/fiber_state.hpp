// What kernels on fibers find in their context when they run on a fiber device: its memory, and where recorded work goes.
#pragma once
#include <cstddef>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

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
  /// Where work of the thread that records a step goes; null: all work runs at once.
  std::vector<std::function<void()>>* recording = nullptr;
  std::thread::id recorder;
  /// Copies to the host that were asked for and not waited for.
  std::vector<std::function<void()>> downloads;
};

/// What the kernels of a fiber device find in ExecContext::backend.
class FiberState final : public BackendState {
 public:
  explicit FiberState(std::shared_ptr<DeviceState> device) : device_(std::move(device)) {}
  DeviceState& device() { return *device_; }

 private:
  std::shared_ptr<DeviceState> device_;
};

/// The fiber device that a context belongs to; null for a context on plain host memory.
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

/// Where what this thread enqueues is recorded; null: nowhere. The device's mutex is held.
inline std::vector<std::function<void()>>* recording_of(const DeviceState* device) {
  return device && device->recorder == std::this_thread::get_id() ? device->recording : nullptr;
}

/// Runs `work` now with the device's memory open, or records it. A context without a fiber device runs it as it is.
void enqueue(ExecContext& exec, std::function<void()> work);

}  // namespace weft::cuda::fibers
