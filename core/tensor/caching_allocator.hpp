// A caching allocator over a device's raw memory: freed blocks are kept by size class and handed out again, so that a
// steady training step asks the system for nothing.
#pragma once
#include <cstddef>
#include <memory>

#include "core/base/memory.hpp"

namespace weft {

/// Raw memory of a device.
class RawMemory {
 public:
  virtual ~RawMemory() = default;
  virtual DeviceId device() const = 0;
  virtual void* allocate(std::size_t bytes) = 0;  ///< null when exhausted
  virtual void deallocate(void* data, std::size_t bytes) noexcept = 0;
};

/// Host memory, aligned to 64 bytes (large blocks to huge pages).
std::unique_ptr<RawMemory> make_host_memory();

struct AllocatorOptions {
  std::size_t limit_bytes = 0;  ///< most bytes taken from the system, live or kept; 0 is no limit
};

/// Thread-safe. Live bytes are counted as rounded up to their size class.
std::unique_ptr<Allocator> make_caching_allocator(std::unique_ptr<RawMemory> memory, AllocatorOptions options = {});

}  // namespace weft
