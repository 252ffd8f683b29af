#include "core/tensor/view.hpp"

#include <algorithm>

namespace weft {

Shape::Shape(std::span<const std::int64_t> sizes) : rank_(static_cast<int>(sizes.size())) {
  WEFT_CHECK(sizes.size() <= max_rank, "{} dims, at most {} are supported", sizes.size(), static_cast<int>(max_rank));
  std::ranges::copy(sizes, sizes_.begin());
}

std::int64_t Shape::numel() const {
  std::int64_t count = 1;
  for (const auto size : sizes()) count *= size;
  return count;
}

bool Shape::operator==(const Shape& other) const { return std::ranges::equal(sizes(), other.sizes()); }

std::string to_string(const Shape& shape) {
  std::string text = "[";
  for (int dim = 0; dim < shape.rank(); ++dim) text += (dim ? ", " : "") + std::to_string(shape[dim]);
  return text + "]";
}

Shape contiguous_strides(const Shape& shape) {
  Shape strides = shape;
  std::int64_t stride = 1;
  for (int dim = shape.rank() - 1; dim >= 0; --dim) {
    strides[dim] = stride;
    stride *= shape[dim];
  }
  return strides;
}

}  // namespace weft
