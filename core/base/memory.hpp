// Where memory comes from, and what it is for.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/base/device.hpp"

namespace weft {

/// What an allocation serves; metrics, predictions and --memory-limit read it.
enum class MemoryUse : std::uint8_t { parameter, gradient, optimizer, activation, workspace, communication };
inline constexpr std::size_t memory_use_count = 6;

constexpr std::string_view name_of(MemoryUse use) {
  constexpr std::array<std::string_view, memory_use_count> names = {"parameter",  "gradient",  "optimizer",
                                                                    "activation", "workspace", "communication"};
  return names[static_cast<std::size_t>(use)];
}

/// Live and highest bytes, in total and by use.
struct MemoryStats {
  std::array<std::size_t, memory_use_count> live{};
  std::array<std::size_t, memory_use_count> peak{};
  std::size_t total_live = 0;
  std::size_t total_peak = 0;
};

/// Gives and takes back memory of one device. Blocks are aligned to 64 bytes or more. Safe to call from several threads.
class Allocator {
 public:
  virtual ~Allocator() = default;
  virtual DeviceId device() const = 0;
  /// Throws Error when the limit or the device is exhausted; the message says how much was asked for and by what use.
  virtual void* allocate(std::size_t bytes, MemoryUse use) = 0;
  virtual void deallocate(void* data, std::size_t bytes, MemoryUse use) noexcept = 0;
  virtual MemoryStats stats() const = 0;
};

}  // namespace weft
