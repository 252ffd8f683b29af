// A device made of fibers: the CUDA kernels' source in memory that only kernels and copies can reach, so that host code
// which touches device memory, reads a result too early, or leaves something out of a recorded step is seen on a machine
// without a GPU.
#pragma once
#include <memory>

#include "core/kernels/backend_module.hpp"

namespace weft::cuda::fibers {

/// Which queues run their work as late as may be, and which at once: what forgets to wait for a late one finds it not done.
enum class Late { computing, others, all };

std::unique_ptr<Device> make_device(const DeviceOptions& options, Late late = Late::others);

}  // namespace weft::cuda::fibers
