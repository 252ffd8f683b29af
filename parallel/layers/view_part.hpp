// A part of a view along any dim.
#pragma once
#include "core/base/range.hpp"
#include "core/tensor/view.hpp"

namespace weft {

/// Elements `range` of a dim.
template <class Pointer>
detail::BasicView<Pointer> part_of(detail::BasicView<Pointer> view, int dim, Range range) {
  using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<Pointer>>, const char, char>;
  view.data =
      static_cast<Byte*>(view.data) + range.begin * view.strides[dim] * static_cast<std::int64_t>(size_of(view.dtype));
  view.shape[dim] = range.size();
  return view;
}

}  // namespace weft
