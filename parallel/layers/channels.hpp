// Channels of a recurrence shared out over the tensor-parallel ranks. In a group of one nothing is copied.
#pragma once
#include <vector>

#include "parallel/layers/linear.hpp"

namespace weft {

/// This rank's share of `width` channels. Throws UserError where there are more tp ranks than channels.
Range held_channels(const BuildContext& build, std::int64_t width);
/// The rows of a fused product [u0|u1|…] of `parts` parts of `width` channels that make those held.
std::vector<WeightRows> channel_rows(const Range& held, std::int64_t parts, std::int64_t width);
/// A parameter whose first dim is parts of `width` channels, of which this rank holds its share of each.
Slice channel_slice(const BuildContext& build, Shape shape, std::int64_t width);
/// A parameter that every rank holds whole, but whose gradient comes from the rank's own channels: a part of the sum.
Slice summed_slice(const BuildContext& build, Shape shape);

/// x [B, T, D] → the columns `held` of it [B, T, held].
Tensor take_channels(OpContext& cx, const Tensor& x, const Range& held);
/// a [B, T, D] and b [B, T, E] beside each other [B, T, D + E].
Tensor join_columns(OpContext& cx, const Tensor& a, const Tensor& b);
/// This rank's channels h [B, T, held] of `width` → the stream. Whole: all-gather, and backward each rank takes its own; rows
/// shared out: all-to-all, and all-to-all. Nothing is summed; shares are filled up to the largest.
Tensor channels_to_stream(OpContext& cx, const TensorGroup& group, const Tensor& h, std::int64_t width);

}  // namespace weft
