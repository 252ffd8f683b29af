#include "parallel/layers/tensor_group.hpp"

#include <algorithm>

namespace weft {
namespace {

constexpr std::int64_t most_chunks = 4;

}  // namespace

Slice TensorGroup::stream_slice(Shape shape) const {
  Slice slice = Slice::whole(shape);
  if (sequence_) slice.placement[static_cast<std::size_t>(Axis::tp)] = Placement::replicated_partial;
  return slice;
}

void TensorGroup::open(OpContext& cx, std::int64_t batch, std::int64_t seq, bool whole) const {
  cx.rows = batch * seq;
  cx.stream = {};
  if (!sequence_ || whole || cx.rows == 0) return;
  const std::int64_t chunks = std::clamp<std::int64_t>(cx.rows / chunk_rows_, 1, most_chunks);
  const std::int64_t run = (cx.rows + chunks * size() - 1) / (chunks * size());
  cx.stream = {rank() * run, run, size() * run};
}

StreamRows TensorGroup::rows(const OpContext& cx) const {
  if (cx.stream.run > 0) return {cx.rows, cx.stream.stride, cx.stream.run, cx.stream.begin};
  const std::int64_t chunks = size() == 1 ? 1 : std::clamp<std::int64_t>(cx.rows / chunk_rows_, 1, most_chunks);
  return {cx.rows, (cx.rows + chunks - 1) / chunks, 0, 0};
}

}  // namespace weft
