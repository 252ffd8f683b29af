// The ranks as a group whose collectives reach the memory that they compute in.
#pragma once
#include <memory>

#include "core/kernels/device.hpp"
#include "parallel/comm/communicator.hpp"

namespace weft {

/// Collective over `world`: a group of the same ranks that also reaches memory of `device`, which outlives it. Null where
/// `world` does already: on the CPU.
std::unique_ptr<Communicator> make_device_world(Communicator& world, Device& device);

}  // namespace weft
