#include "core/tensor/slice.hpp"

#include <algorithm>

namespace weft {

namespace {

// Elements [begin, end) of a box, from dim `dim` on, as boxes in row-major order: what is left of the row of the first, whole
// rows, what is there of the row of the last.
void cut_box(const Box& box, std::int64_t begin, std::int64_t end, int dim, std::vector<Box>& out) {
  std::int64_t row = 1;
  for (int inner = dim + 1; inner < box.size.rank(); ++inner) row *= box.size[inner];
  const auto rows = [&](std::int64_t first, std::int64_t last) {
    Box part = box;
    part.begin[dim] += first;
    part.size[dim] = last - first;
    return part;
  };
  const std::int64_t whole = (begin + row - 1) / row, last = end / row;
  if (whole > last) return cut_box(rows(last, last + 1), begin - last * row, end - last * row, dim + 1, out);
  if (begin < whole * row) cut_box(rows(whole - 1, whole), begin - (whole - 1) * row, row, dim + 1, out);
  if (whole < last) out.push_back(rows(whole, last));
  if (last * row < end) cut_box(rows(last, last + 1), 0, end - last * row, dim + 1, out);
}

}  // namespace

Slice Slice::whole(Shape global_shape) {
  Shape origin = global_shape;
  for (int dim = 0; dim < origin.rank(); ++dim) origin[dim] = 0;
  Slice slice;
  slice.global_shape = global_shape;
  slice.boxes = {{origin, global_shape}};
  return slice;
}

std::int64_t Slice::numel() const {
  if (flat) return (*flat)[1] - (*flat)[0];
  std::int64_t count = 0;
  for (const Box& box : boxes) count += box.size.numel();
  return count;
}

Shape Slice::local_shape() const {
  if (flat) return {numel()};
  if (boxes.empty()) return {0};
  Shape shape = boxes.front().size;
  for (std::size_t i = 1; i < boxes.size(); ++i) {
    for (int dim = 1; dim < shape.rank(); ++dim)
      if (boxes[i].size[dim] != shape[dim]) return {numel()};
    shape[0] += boxes[i].size[0];
  }
  return shape;
}

std::vector<Box> Slice::kept_boxes() const {
  if (!flat) return boxes;
  std::vector<Box> kept;
  std::int64_t box_begin = 0;
  for (const Box& box : boxes) {
    const std::int64_t count = box.size.numel();
    const std::int64_t begin = std::max((*flat)[0], box_begin), end = std::min((*flat)[1], box_begin + count);
    if (begin < end) cut_box(box, begin - box_begin, end - box_begin, 0, kept);
    box_begin += count;
  }
  return kept;
}

void Slice::for_each_run(const std::function<void(std::int64_t, std::int64_t, std::int64_t)>& run) const {
  const std::int64_t first = flat ? (*flat)[0] : 0;
  const std::int64_t last = flat ? (*flat)[1] : numel();
  const Shape global_strides = contiguous_strides(global_shape);
  std::int64_t box_begin = 0;
  for (const Box& box : boxes) {
    const std::int64_t count = box.size.numel();
    // Dims from `tail` on are whole, so that the elements under one index of the dims before it are consecutive.
    int tail = box.size.rank();
    while (tail > 0 && (tail == box.size.rank() || box.size[tail] == global_shape[tail])) --tail;
    std::int64_t length = 1;
    for (int dim = tail; dim < box.size.rank(); ++dim) length *= box.size[dim];
    const std::int64_t begin = std::max(first, box_begin), end = std::min(last, box_begin + count);
    for (std::int64_t at = begin; at < end;) {
      const std::int64_t in_box = at - box_begin, within = in_box % length;
      std::int64_t index = in_box / length, global = within;
      for (int dim = tail - 1; dim >= 0; --dim) {
        global += (box.begin[dim] + index % box.size[dim]) * global_strides[dim];
        index /= box.size[dim];
      }
      for (int dim = tail; dim < box.size.rank(); ++dim) global += box.begin[dim] * global_strides[dim];
      const std::int64_t step = std::min(length - within, end - at);
      run(at - first, global, step);
      at += step;
    }
    box_begin += count;
  }
}

}  // namespace weft
