// How long a GPU computed, by CUPTI.
#pragma once

namespace weft {

/// Starts counting; call it before the device is opened. Throws Error where CUPTI is not built in or cannot be opened.
void count_kernel_times();
/// Seconds in which at least one kernel ran since the last call, or since the start. The device must be idle.
double take_kernel_seconds();

}  // namespace weft
