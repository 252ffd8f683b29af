#include "core/data/permutation.hpp"

#include <bit>

#include "core/base/error.hpp"

namespace weft {

Permutation::Permutation(std::uint64_t size, PhiloxKey key) : size_(size), key_(key) {
  WEFT_CHECK(size > 0);
  half_bits_ = static_cast<unsigned>(std::bit_width(size - 1) + 1) / 2;
}

std::uint64_t Permutation::encrypt(std::uint64_t word) const {
  constexpr std::uint32_t rounds = 6;
  const std::uint64_t mask = (std::uint64_t{1} << half_bits_) - 1;
  std::uint64_t left = word >> half_bits_;
  std::uint64_t right = word & mask;
  for (std::uint32_t round = 0; round < rounds; ++round) {
    const PhiloxBlock noise = philox(key_, {static_cast<std::uint32_t>(right), round, 0u, 0u});
    const std::uint64_t next = left ^ (noise[0] & mask);
    left = right;
    right = next;
  }
  return (left << half_bits_) | right;
}

std::uint64_t Permutation::operator()(std::uint64_t index) const {
  WEFT_CHECK(index < size_);
  do {
    index = encrypt(index);
  } while (index >= size_);
  return index;
}

}  // namespace weft
