// Checks of views that backends share.
#pragma once
#include "core/tensor/view.hpp"

namespace weft {

/// Checks that a view, if it is there, is contiguous and has this shape and dtype.
inline void check_like(const View& view, const Shape& shape, DType dtype, const char* name) {
  if (!view) return;
  WEFT_CHECK(view.contiguous(), "{} is not contiguous", name);
  WEFT_CHECK(view.numel() == shape.numel() && view.cols() == (shape.rank() ? shape[-1] : 1), "{} is {}, expected {}",
             name, to_string(view.shape), to_string(shape));
  WEFT_CHECK(view.dtype == dtype, "{} is {}, expected {}", name, name_of(view.dtype), name_of(dtype));
}

/// Checks that a view, if it is there, has `count` contiguous f32 elements in any shape.
inline void check_count(const View& view, std::int64_t count, const char* name) {
  if (!view) return;
  WEFT_CHECK(view.contiguous() && view.numel() == count && view.dtype == DType::f32, "{} is {} {}, expected {} f32",
             name, name_of(view.dtype), to_string(view.shape), count);
}

/// The same as check_like for a view that must be there, unless it has no elements.
inline void check_given(const View& view, const Shape& shape, DType dtype, const char* name) {
  WEFT_CHECK(view || shape.numel() == 0, "{} is missing", name);
  check_like(view, shape, dtype, name);
}

inline float* floats(const MutView& view) { return static_cast<float*>(view.data); }
inline const float* floats(const View& view) { return static_cast<const float*>(view.data); }

}  // namespace weft
