// A half-open range of indices.
#pragma once
#include <cstdint>

namespace weft {

/// [begin, end).
struct Range {
  std::int64_t begin = 0, end = 0;
  constexpr std::int64_t size() const { return end - begin; }
};

}  // namespace weft
