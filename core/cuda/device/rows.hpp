// Work on matrices row by row, where a row's own values (its token, its place in the global batch) cost too much to find
// for each element.
#pragma once
#include "core/cuda/device/block.hpp"

namespace weft::cuda {

/// Columns of one row that a warp takes before it looks for its next row.
template <int Width>
inline constexpr std::int64_t row_span = std::int64_t{4} * warp_threads* Width;

/// Host: blocks for for_row_packs.
template <class Kernel, int Width>
constexpr std::int64_t row_blocks(std::int64_t rows, std::int64_t cols) {
  const std::int64_t blocks = ceil_div(rows * ceil_div(cols, row_span<Width>), Kernel::threads / warp_threads);
  return blocks < max_grid_blocks ? blocks : max_grid_blocks;
}

/// start(row)(col) for each pack of Width columns from `col` on of [rows, cols]; Width divides cols. Neighbouring lanes
/// have neighbouring packs of one row.
template <int Width, class Start>
WEFT_DEVICE void for_row_packs(const Block& block, std::int64_t rows, std::int64_t cols, Start&& start) {
  const std::int64_t spans = ceil_div(cols, row_span<Width>), step = block.blocks() * block.warps();
  for (std::int64_t i = block.index() * block.warps() + block.warp(); i < rows * spans; i += step) {
    const std::int64_t row = i / spans, begin = (i - row * spans) * row_span<Width>;
    const std::int64_t end = begin + row_span<Width> < cols ? begin + row_span<Width> : cols;
    const auto each = start(row);
    for (std::int64_t col = begin + block.lane() * Width; col < end; col += warp_threads * Width) each(col);
  }
}

}  // namespace weft::cuda
