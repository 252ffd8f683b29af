// What the driver says of this process's GPUs.
#pragma once
#include "core/kernels/backend_module.hpp"

namespace weft::cuda {

/// Throws Error that says what is missing (driver, device) where there is none.
int device_count();

/// All devices. The one that is current stays so.
std::vector<DeviceSummary> summaries();

/// Of one device, without its libraries but the driver and the runtime. Throws Error that names the call.
DeviceFacts facts_of(int index);

}  // namespace weft::cuda
