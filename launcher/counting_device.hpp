// A device that computes nothing and has no memory, and counts what would be allocated: for predictions.
#pragma once
#include <memory>

#include "core/kernels/device.hpp"

namespace weft {

class CountingDevice : public Device {
 public:
  /// Most bytes that were in use or kept by recorded steps at a time.
  virtual std::size_t most_held() const = 0;
};

/// Stands for a device of that kind with those facts: the same shapes, categories and packed copies of weights, and recorded
/// steps that keep their memory. Kernels' scratch memory and what libraries take are not counted.
std::unique_ptr<CountingDevice> make_counting_device(DeviceKind kind, const DeviceFacts& facts, int threads);

}  // namespace weft
