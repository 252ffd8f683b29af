// What a kernel sees: a pointer with shape, strides, dtype and device. Kernels take counts from views, never from a raw
// pointer plus an integer.
#pragma once
#include <array>
#include <cstdint>
#include <initializer_list>
#include <span>
#include <string>
#include <type_traits>

#include "core/base/device.hpp"
#include "core/base/dtype.hpp"
#include "core/base/error.hpp"

namespace weft {

/// Sizes of up to six dims, row-major, held inline.
class Shape {
 public:
  static constexpr int max_rank = 6;

  Shape() = default;
  Shape(std::initializer_list<std::int64_t> sizes) : Shape(std::span(sizes.begin(), sizes.size())) {}
  explicit Shape(std::span<const std::int64_t> sizes);

  int rank() const { return rank_; }
  std::int64_t operator[](int dim) const { return sizes_[static_cast<std::size_t>(dim < 0 ? dim + rank_ : dim)]; }
  std::int64_t& operator[](int dim) { return sizes_[static_cast<std::size_t>(dim < 0 ? dim + rank_ : dim)]; }
  std::int64_t numel() const;
  std::span<const std::int64_t> sizes() const { return {sizes_.data(), static_cast<std::size_t>(rank_)}; }
  bool operator==(const Shape& other) const;

 private:
  std::array<std::int64_t, max_rank> sizes_{};
  int rank_ = 0;
};

std::string to_string(const Shape& shape);

/// Row-major strides in elements.
Shape contiguous_strides(const Shape& shape);

namespace detail {

template <class Pointer>
struct BasicView {
  Pointer data = nullptr;
  Shape shape;
  Shape strides;  ///< in elements
  DType dtype = DType::f32;
  DeviceId device;
  const float* scales = nullptr;  ///< block scales of quantised formats; null otherwise

  BasicView() = default;
  BasicView(Pointer data_, Shape shape_, DType dtype_, DeviceId device_ = {})
      : data(data_), shape(shape_), strides(contiguous_strides(shape_)), dtype(dtype_), device(device_) {}
  template <class Other>
    requires std::is_convertible_v<Other, Pointer>
  BasicView(const BasicView<Other>& other)
      : data(other.data), shape(other.shape), strides(other.strides), dtype(other.dtype), device(other.device),
        scales(other.scales) {}

  explicit operator bool() const { return data != nullptr; }
  std::int64_t numel() const { return shape.numel(); }
  std::size_t bytes() const { return static_cast<std::size_t>(numel()) * size_of(dtype); }
  bool contiguous() const { return strides == contiguous_strides(shape); }
  /// The last dim, or 1 for a scalar.
  std::int64_t cols() const { return shape.rank() == 0 ? 1 : shape[-1]; }
  /// The product of all dims but the last.
  std::int64_t rows() const { return cols() == 0 ? 0 : numel() / cols(); }

  template <class T>
  auto as() const {
    using Element = std::conditional_t<std::is_const_v<std::remove_pointer_t<Pointer>>, const T, T>;
    WEFT_CHECK(dtype == dtype_of<T>, "expected {}, found {}", name_of(dtype_of<T>), name_of(dtype));
    return static_cast<Element*>(data);
  }
  /// The same contiguous elements under another shape of equal count.
  BasicView reshaped(Shape other) const {
    WEFT_CHECK(contiguous() && other.numel() == numel(), "{} as {}", to_string(shape), to_string(other));
    BasicView view = *this;
    view.shape = other;
    view.strides = contiguous_strides(other);
    return view;
  }
  /// Elements [begin, end) of the first dim.
  BasicView slice(std::int64_t begin, std::int64_t end) const {
    WEFT_CHECK(shape.rank() > 0 && 0 <= begin && begin <= end && end <= shape[0], "[{}, {}) of {}", begin, end,
               to_string(shape));
    BasicView view = *this;
    using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<Pointer>>, const char, char>;
    view.data = static_cast<Byte*>(data) + begin * strides[0] * static_cast<std::int64_t>(size_of(dtype));
    view.shape[0] = end - begin;
    return view;
  }
};

}  // namespace detail

using View = detail::BasicView<const void*>;
using MutView = detail::BasicView<void*>;

}  // namespace weft
