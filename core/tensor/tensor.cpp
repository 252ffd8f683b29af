#include "core/tensor/tensor.hpp"

namespace weft {

Tensor Tensor::empty(Allocator& memory, Shape shape, DType dtype, MemoryUse use) {
  Tensor tensor;
  tensor.storage_ =
      std::make_shared<Storage>(memory, static_cast<std::size_t>(shape.numel()) * size_of(dtype), use);
  tensor.shape_ = shape;
  tensor.dtype_ = dtype;
  return tensor;
}

MutView Tensor::mut() const {
  if (!defined()) return {};
  return {static_cast<char*>(storage_->data()) + offset_bytes_, shape_, dtype_, device()};
}

View Tensor::view() const { return mut(); }

Tensor Tensor::reshaped(Shape shape) const {
  WEFT_CHECK(shape.numel() == numel(), "{} as {}", to_string(shape_), to_string(shape));
  Tensor tensor = *this;
  tensor.shape_ = shape;
  return tensor;
}

Tensor Tensor::slice(std::int64_t begin, std::int64_t end) const {
  WEFT_CHECK(shape_.rank() > 0 && 0 <= begin && begin <= end && end <= shape_[0], "[{}, {}) of {}", begin, end,
             to_string(shape_));
  Shape shape = shape_;
  shape[0] = end - begin;
  const std::int64_t row = shape_[0] == 0 ? 0 : numel() / shape_[0];
  return window(begin * row, shape);
}

Tensor Tensor::window(std::int64_t offset, Shape shape) const {
  WEFT_CHECK(offset >= 0 && offset + shape.numel() <= numel(), "{} from element {} of {}", to_string(shape), offset,
             to_string(shape_));
  Tensor tensor = *this;
  tensor.offset_bytes_ += offset * static_cast<std::int64_t>(size_of(dtype_));
  tensor.shape_ = shape;
  tensor.value_ = no_value;
  return tensor;
}

Tensor Tensor::detached() const {
  Tensor tensor = *this;
  tensor.value_ = no_value;
  return tensor;
}

}  // namespace weft
