// Which device memory lives on.
#pragma once
#include <cstdint>
#include <string_view>

namespace weft {

enum class DeviceKind : std::uint8_t { cpu, cuda };

constexpr std::string_view name_of(DeviceKind kind) { return kind == DeviceKind::cpu ? "cpu" : "cuda"; }

struct DeviceId {
  DeviceKind kind = DeviceKind::cpu;
  std::int8_t index = 0;
  bool operator==(const DeviceId&) const = default;
};

}  // namespace weft
