// A caching allocator over a device's raw memory: freed blocks are kept by size class and handed out again, so that a
// steady training step asks the system for nothing.
#pragma once
#include <cstddef>
#include <memory>
#include <string>

#include "core/base/error.hpp"
#include "core/base/memory.hpp"

namespace weft {

/// Raw memory of a device.
class RawMemory {
 public:
  virtual ~RawMemory() = default;
  virtual DeviceId device() const = 0;
  virtual void* allocate(std::size_t bytes) = 0;  ///< null when exhausted
  virtual void deallocate(void* data, std::size_t bytes) noexcept = 0;
  /// How much is left, for whom it is exhausted; empty if nobody knows.
  virtual std::string left() const { return {}; }
};

/// Host memory, aligned to 64 bytes (large blocks to huge pages).
std::unique_ptr<RawMemory> make_host_memory();

/// The limit or the device is exhausted.
class OutOfMemory : public Error {
 public:
  using Error::Error;
};

struct AllocatorOptions {
  std::size_t limit_bytes = 0;  ///< most bytes taken from the system, live or kept; 0 is no limit
};

/// allocate() throws OutOfMemory.
class CachingAllocator : public Allocator {
 public:
  /// Gives the unused blocks outside pools back to the system. Nothing that the device was given may still touch them.
  virtual void release_unused() = 0;
  /// From here to end_pool() blocks come from a pool of their own, which takes those that are freed back: a recorded step
  /// finds its memory where it was, whatever else is allocated between its replays.
  virtual void begin_pool() = 0;
  /// The pool's blocks stay its own until the handle dies, which must not outlive the allocator.
  virtual std::shared_ptr<void> end_pool() = 0;
  /// Most bytes that were in use or kept by pools at a time: what the limit bounds.
  virtual std::size_t most_held() const = 0;
};

/// Thread-safe. Live bytes are counted as rounded up to their size class; what a pool holds unused counts to the limit alone.
std::unique_ptr<CachingAllocator> make_caching_allocator(std::unique_ptr<RawMemory> memory,
                                                         AllocatorOptions options = {});

}  // namespace weft
