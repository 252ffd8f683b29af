#include "core/base/philox.hpp"

#include <cmath>
#include <numbers>

namespace weft {
namespace {

// The finalizer of SplitMix64: a bijection with full avalanche.
std::uint64_t mix(std::uint64_t word) {
  word += 0x9E3779B97F4A7C15ull;
  word = (word ^ (word >> 30)) * 0xBF58476D1CE4E5B9ull;
  word = (word ^ (word >> 27)) * 0x94D049BB133111EBull;
  return word ^ (word >> 31);
}

PhiloxKey split(std::uint64_t word) {
  return {static_cast<std::uint32_t>(word), static_cast<std::uint32_t>(word >> 32)};
}

}  // namespace

PhiloxKey philox_key(std::uint64_t seed, std::uint64_t a, std::uint64_t b) {
  return split(mix(mix(mix(seed) ^ a) ^ b));
}

PhiloxKey philox_key(std::uint64_t seed, std::string_view name) {
  std::uint64_t hash = 0xcbf29ce484222325ull;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3ull;
  return split(mix(mix(seed) ^ hash));
}

double normal(PhiloxKey key, std::uint64_t index) {
  const PhiloxBlock block = philox_block(key, index / 2);
  const double u = (static_cast<double>(block[0]) + 1.0) * 0x1p-32;  // (0, 1]
  const double angle = 2.0 * std::numbers::pi * static_cast<double>(block[1]) * 0x1p-32;
  const double radius = std::sqrt(-2.0 * std::log(u));
  return index % 2 == 0 ? radius * std::cos(angle) : radius * std::sin(angle);
}

}  // namespace weft
