// What kernels on fibers find in their context when they run on a fiber device: its memory, and where recorded work goes.
#pragma once
#include <cstddef>
#include <functional>
#include <memory>
#include <vector>

#include "core/kernels/exec.hpp"

namespace weft::cuda::fibers {

/// Address space of its own, without access rights but between open() and close(), which nest.
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
  char* base_;
  std::size_t used_ = 0;
  int depth_ = 0;
};

/// What queues of one fiber device share.
struct DeviceState {
  ProtectedMemory memory;
  /// Where work goes while a step is recorded; null: it runs at once.
  std::vector<std::function<void()>>* recording = nullptr;
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

/// Opens a device's memory for a while; does nothing for null.
class Access {
 public:
  explicit Access(DeviceState* device) : device_(device) {
    if (device_) device_->memory.open();
  }
  ~Access() {
    if (device_) device_->memory.close();
  }
  Access(const Access&) = delete;
  Access& operator=(const Access&) = delete;

 private:
  DeviceState* device_;
};

/// Runs `work` now with the device's memory open, or records it. A context without a fiber device runs it as it is.
void enqueue(ExecContext& exec, std::function<void()> work);

}  // namespace weft::cuda::fibers
