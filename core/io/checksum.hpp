// XXH64 (Collet, the xxHash specification): 64 bits against corruption, at memory speed.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace weft {

/// Takes the data in pieces of any size; the value is that of all pieces as one.
class Checksum {
 public:
  explicit Checksum(std::uint64_t seed = 0);
  void update(std::span<const std::byte> bytes);
  std::uint64_t value() const;

 private:
  std::array<std::uint64_t, 4> lanes_;
  std::array<std::byte, 32> tail_{};
  std::uint64_t seed_;
  std::uint64_t total_ = 0;
};

std::uint64_t checksum(std::span<const std::byte> bytes);

/// Sixteen hexadecimal digits, as the checkpoint's index stores it.
std::string checksum_text(std::uint64_t value);

}  // namespace weft
