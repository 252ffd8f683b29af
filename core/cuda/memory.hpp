// A GPU's memory and pinned host memory, as the caching allocator takes them.
#pragma once
#include <memory>

#include "core/tensor/caching_allocator.hpp"

namespace weft::cuda {

/// Of the device of this index, which is current where memory is taken.
std::unique_ptr<RawMemory> make_device_memory(int index);
/// Host memory that devices copy from and to by themselves.
std::unique_ptr<RawMemory> make_pinned_memory();

}  // namespace weft::cuda
