// A keyed permutation of 0 … size-1 in O(1) memory with random access: a Feistel network on the next power of four,
// walked along its cycle until it falls into the range (Black and Rogaway, "Ciphers with arbitrary finite domains",
// 2002).
#pragma once
#include <cstdint>

#include "core/base/philox.hpp"

namespace weft {

class Permutation {
 public:
  /// `size` > 0.
  Permutation(std::uint64_t size, PhiloxKey key);
  /// The image of `index` < size.
  std::uint64_t operator()(std::uint64_t index) const;

 private:
  std::uint64_t encrypt(std::uint64_t word) const;

  std::uint64_t size_;
  PhiloxKey key_;
  unsigned half_bits_;
};

}  // namespace weft
