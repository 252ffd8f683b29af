// Philox4x32-10, the counter-based generator of Salmon et al., "Parallel random numbers: as easy as 1, 2, 3" (SC 2011).
// A word depends on (key, counter) alone, so any rank, thread or device draws the same bits for the same global element.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>

namespace weft {

using PhiloxKey = std::array<std::uint32_t, 2>;
using PhiloxBlock = std::array<std::uint32_t, 4>;

constexpr PhiloxBlock philox(PhiloxKey key, PhiloxBlock counter) {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * counter[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * counter[2];
    counter = {static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(p1),
               static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(p0)};
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  return counter;
}

/// Four words for the 64-bit block index.
constexpr PhiloxBlock philox_block(PhiloxKey key, std::uint64_t block) {
  return philox(key, {static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32), 0u, 0u});
}

/// The word of one global element: block index / 4, word index mod 4.
constexpr std::uint32_t philox_word(PhiloxKey key, std::uint64_t index) {
  return philox_block(key, index / 4)[index % 4];
}

/// Uniform in [0, 1) with 24 bits, exactly representable in f32.
constexpr float uniform(std::uint32_t word) { return static_cast<float>(word >> 8) * 0x1p-24f; }

/// Mixes (seed, a, b) into a key; the streams of different (seed, a, b) are independent for all practical purposes.
PhiloxKey philox_key(std::uint64_t seed, std::uint64_t a = 0, std::uint64_t b = 0);

/// Key of a named stream (parameter initialisation).
PhiloxKey philox_key(std::uint64_t seed, std::string_view name);

/// Standard normal of a global element by Box-Muller on words 2k and 2k+1 of its block, in double precision.
double normal(PhiloxKey key, std::uint64_t index);

}  // namespace weft
