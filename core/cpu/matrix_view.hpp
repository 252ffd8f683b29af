// What the CPU's linear kernels add to views as matrices.
#pragma once
#include <algorithm>

#include "core/cpu/vec/kernels.hpp"
#include "core/kernels/matrix_view.hpp"

namespace weft::cpu {

inline Elem elem_of(const ConstMatrix& matrix) { return matrix.dtype == DType::bf16 ? Elem::bf16 : Elem::f32; }

inline void zero(const Matrix& m) {
  for (std::int64_t r = 0; r < m.rows; ++r) std::fill_n(static_cast<float*>(m.data) + r * m.stride, m.cols, 0.0f);
}

}  // namespace weft::cpu
