// A device that computes nothing and has no memory, and counts what would be allocated: for predictions.
#pragma once
#include <memory>

#include "core/kernels/device.hpp"

namespace weft {

/// Stands for a device of that kind with those facts: the same shapes, categories and packed copies of weights. Kernels' scratch
/// memory and what libraries take are not counted.
std::unique_ptr<Device> make_counting_device(DeviceKind kind, const DeviceFacts& facts, int threads);

}  // namespace weft
