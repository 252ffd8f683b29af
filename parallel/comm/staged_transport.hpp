// Device memory over a transport that reaches the host's alone: what leaves is copied to pinned host memory first, what
// arrives is copied to the device from there, and the collective itself runs in between.
#pragma once
#include <memory>

#include "core/kernels/device.hpp"
#include "parallel/comm/transport.hpp"

namespace weft {

/// The copies of one device's collectives: two queues beside the one that computes, and a thread for each. All groups of
/// the device share it, so that their collectives start in one program order.
class DeviceStaging {
 public:
  /// Makes the queues; `device` outlives it.
  explicit DeviceStaging(Device& device);
  /// Starts what was given, and waits a bounded time for its end; what ends later ends with an Error.
  ~DeviceStaging();
  DeviceStaging(const DeviceStaging&) = delete;
  DeviceStaging& operator=(const DeviceStaging&) = delete;

  bool serves(DeviceId device) const;
  /// Has `inner` run `operation` on host memory. From one thread at a time, in program order. On device memory it starts
  /// when the computing queue has run what it was given so far.
  void start(std::shared_ptr<Operation> operation, const std::shared_ptr<Transport>& inner);

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
};

/// Serves host memory as `inner` does, and the device's through `staging`. Waiting for a collective blocks the host until
/// the device has the result.
std::unique_ptr<Transport> make_staged_transport(std::unique_ptr<Transport> inner,
                                                 std::shared_ptr<DeviceStaging> staging);

}  // namespace weft
