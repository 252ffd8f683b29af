// Views as matrices of rows that lie a fixed stride apart, with the checks that the linear kernels share.
#pragma once
#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "core/cpu/vec/kernels.hpp"
#include "core/tensor/view.hpp"

namespace weft::cpu {

/// All dims but the last of a view taken together as rows. Throws Error if the elements of a row are not contiguous, if
/// the rows are not equally spaced, or if the dtype is neither f32 nor bf16.
template <class Pointer>
struct BasicMatrix {
  Pointer data = nullptr;
  Elem elem = Elem::f32;
  std::int64_t rows = 0, cols = 0, stride = 0;

  explicit BasicMatrix(const detail::BasicView<Pointer>& view)
      : data(view.data), rows(view.rows()), cols(view.cols()), stride(cols) {
    WEFT_CHECK(view.dtype == DType::f32 || view.dtype == DType::bf16, "a matrix of {}", name_of(view.dtype));
    elem = view.dtype == DType::bf16 ? Elem::bf16 : Elem::f32;
    const int rank = view.shape.rank();
    if (rank < 2) return;
    stride = view.strides[-2];
    bool even = view.strides[-1] == 1 || cols == 1;
    for (int dim = rank - 3; dim >= 0; --dim)
      even = even && (view.shape[dim] == 1 || view.strides[dim] == view.strides[dim + 1] * view.shape[dim + 1]);
    WEFT_CHECK(even, "rows of {} with strides {} are not equally spaced", to_string(view.shape),
               to_string(view.strides));
  }
};
using ConstMatrix = BasicMatrix<const void*>;
using Matrix = BasicMatrix<void*>;

template <class A, class B>
void check_same_rows(const char* kernel, const BasicMatrix<A>& a, const BasicMatrix<B>& b) {
  WEFT_CHECK(a.rows == b.rows, "{}: {} rows against {}", kernel, a.rows, b.rows);
}

template <class A, class B>
void check_like(const char* what, const BasicMatrix<A>& a, const BasicMatrix<B>& b) {
  WEFT_CHECK(a.rows == b.rows && a.cols == b.cols && a.elem == b.elem, "{} is [{}, {}], the output [{}, {}]", what,
             a.rows, a.cols, b.rows, b.cols);
}

/// A weight or its gradient: f32 [outputs, inputs].
template <class A>
void check_weight(const char* kernel, const BasicMatrix<A>& weight, std::int64_t outputs, std::int64_t inputs) {
  WEFT_CHECK(weight.elem == Elem::f32 && weight.rows == outputs && weight.cols == inputs,
             "{}: a weight [{}, {}] for {} inputs and {} outputs", kernel, weight.rows, weight.cols, inputs, outputs);
}

/// The elements of a contiguous vector of `count`.
template <class T, class Pointer>
auto vector_of(const char* what, const detail::BasicView<Pointer>& view, std::int64_t count) {
  WEFT_CHECK(view.numel() == count && view.contiguous(), "{} has shape {}, not [{}]", what, to_string(view.shape),
             count);
  return view.template as<T>();
}

inline void zero(const Matrix& m) {
  for (std::int64_t r = 0; r < m.rows; ++r) std::fill_n(static_cast<float*>(m.data) + r * m.stride, m.cols, 0.0f);
}

}  // namespace weft::cpu
