// A GPU as a Device: memory by cudaMalloc behind the caching allocator, one stream that computes, steps as CUDA graphs.
#pragma once
#include <memory>

#include "core/kernels/backend_module.hpp"

namespace weft::cuda {

/// Throws Error that names the call, or says that these kernels were not compiled for the device.
std::unique_ptr<Device> make_device(const DeviceOptions& options);

}  // namespace weft::cuda
