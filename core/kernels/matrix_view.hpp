// Views as matrices of rows that lie a fixed stride apart, with the checks that the linear kernels share.
#pragma once
#include <cstdint>
#include <type_traits>

#include "core/tensor/view.hpp"

namespace weft {

/// All dims but the last of a view taken together as rows. Throws Error if the elements of a row are not contiguous, if
/// the rows are not equally spaced, or if the dtype is neither f32 nor bf16.
template <class Pointer>
struct BasicMatrix {
  Pointer data = nullptr;
  DType dtype = DType::f32;
  std::int64_t rows = 0, cols = 0, stride = 0;  ///< stride in elements

  BasicMatrix() = default;
  BasicMatrix(Pointer data_, DType dtype_, std::int64_t rows_, std::int64_t cols_, std::int64_t stride_)
      : data(data_), dtype(dtype_), rows(rows_), cols(cols_), stride(stride_) {}
  template <class Other>
    requires std::is_convertible_v<Other, Pointer>
  BasicMatrix(const BasicMatrix<Other>& other)
      : BasicMatrix(other.data, other.dtype, other.rows, other.cols, other.stride) {}
  explicit BasicMatrix(const detail::BasicView<Pointer>& view)
      : BasicMatrix(view.data, view.dtype, view.rows(), view.cols(), view.cols()) {
    WEFT_CHECK(dtype == DType::f32 || dtype == DType::bf16, "a matrix of {}", name_of(dtype));
    const int rank = view.shape.rank();
    if (rank < 2 || rows < 2) return;
    stride = view.strides[-2];
    bool even = (view.strides[-1] == 1 || cols == 1) && stride >= cols;
    for (int dim = rank - 3; dim >= 0; --dim)
      even = even && (view.shape[dim] == 1 || view.strides[dim] == view.strides[dim + 1] * view.shape[dim + 1]);
    WEFT_CHECK(even, "rows of {} with strides {} are not equally spaced", to_string(view.shape),
               to_string(view.strides));
  }

  explicit operator bool() const { return data != nullptr; }
  std::int64_t row_bytes() const { return stride * static_cast<std::int64_t>(size_of(dtype)); }
  /// Rows [begin, begin + count).
  BasicMatrix slice(std::int64_t begin, std::int64_t count) const {
    using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<Pointer>>, const char, char>;
    return {static_cast<Byte*>(data) + begin * row_bytes(), dtype, count, cols, stride};
  }
};
using ConstMatrix = BasicMatrix<const void*>;
using Matrix = BasicMatrix<void*>;

template <class A, class B>
void check_same_rows(const char* kernel, const BasicMatrix<A>& a, const BasicMatrix<B>& b) {
  WEFT_CHECK(a.rows == b.rows, "{}: {} rows against {}", kernel, a.rows, b.rows);
}

template <class A, class B>
void check_same_shape(const char* what, const BasicMatrix<A>& a, const BasicMatrix<B>& b) {
  WEFT_CHECK(a.rows == b.rows && a.cols == b.cols && a.dtype == b.dtype, "{} is {} [{}, {}], the output {} [{}, {}]",
             what, name_of(a.dtype), a.rows, a.cols, name_of(b.dtype), b.rows, b.cols);
}

/// A weight or its gradient: f32 [outputs, inputs].
template <class A>
void check_weight(const char* kernel, const BasicMatrix<A>& weight, std::int64_t outputs, std::int64_t inputs) {
  WEFT_CHECK(weight.dtype == DType::f32 && weight.rows == outputs && weight.cols == inputs,
             "{}: a weight [{}, {}] for {} inputs and {} outputs", kernel, weight.rows, weight.cols, inputs, outputs);
}

/// The elements of a contiguous vector of `count`.
template <class T, class Pointer>
auto vector_of(const char* what, const detail::BasicView<Pointer>& view, std::int64_t count) {
  WEFT_CHECK(view.numel() == count && view.contiguous(), "{} has shape {}, not [{}]", what, to_string(view.shape),
             count);
  return view.template as<T>();
}

}  // namespace weft
