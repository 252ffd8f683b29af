// The host as a device.
#pragma once
#include <cstddef>
#include <memory>

#include "core/cpu/backend.hpp"
#include "core/kernels/device.hpp"

namespace weft::cpu {

struct CpuDeviceOptions {
  int threads = 1;
  std::size_t memory_limit = 0;  ///< bytes; 0: none
  Isa isa = best_isa();
};

/// Kernels run at once, in the thread that calls them; `threads` is what OpenMP must give.
std::unique_ptr<Device> make_device(const CpuDeviceOptions& options);

}  // namespace weft::cpu
