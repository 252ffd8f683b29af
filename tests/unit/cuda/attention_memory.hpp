// Memory of attention's tests, and slices of fused projections in it.
#pragma once
#include <cstdint>
#include <type_traits>
#include <vector>

#include "core/base/philox.hpp"
#include "core/tensor/view.hpp"

namespace weft::test {

class Memory {
 public:
  /// Values that the same seed gives again, aligned to 64 bytes.
  View random(const Shape& shape, DType dtype, std::uint64_t seed) {
    const MutView made = zeros(shape, dtype);
    for (std::int64_t i = 0; i < made.numel(); ++i) {
      const auto value = static_cast<float>(normal(philox_key(seed), static_cast<std::uint64_t>(i)));
      if (dtype == DType::bf16)
        static_cast<bf16*>(made.data)[i] = bf16(value);
      else
        static_cast<float*>(made.data)[i] = value;
    }
    return made;
  }
  MutView zeros(const Shape& shape, DType dtype) {
    blocks_.emplace_back(static_cast<std::size_t>(shape.numel()) * size_of(dtype) + 64);
    const auto address = reinterpret_cast<std::uintptr_t>(blocks_.back().data());
    return {blocks_.back().data() + (64 - address % 64) % 64, shape, dtype};
  }

 private:
  std::vector<std::vector<char>> blocks_;
};

inline std::vector<double> values_of(const View& view) {
  std::vector<double> values(static_cast<std::size_t>(view.numel()));
  for (std::size_t i = 0; i < values.size(); ++i)
    values[i] = view.dtype == DType::bf16 ? static_cast<double>(static_cast<float>(view.as<bf16>()[i]))
                                          : static_cast<double>(view.as<float>()[i]);
  return values;
}

/// A slice of heads of a fused projection [B, T, width].
template <class AnyView>
AnyView heads_of(AnyView fused, std::int64_t first, std::int64_t heads, std::int64_t dim) {
  AnyView part = fused;
  const std::int64_t batch = fused.shape[0], length = fused.shape[1], width = fused.shape[2];
  using Byte = std::conditional_t<std::is_same_v<AnyView, View>, const char, char>;
  part.data = static_cast<Byte*>(fused.data) + first * dim * 2;
  part.shape = {batch, length, heads, dim};
  part.strides = {length * width, width, dim, 1};
  return part;
}

}  // namespace weft::test
