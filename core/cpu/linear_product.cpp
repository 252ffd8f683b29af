#include "core/cpu/linear_product.hpp"

#include <omp.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstring>

#include "core/base/dtype.hpp"

namespace weft::cpu {

namespace {

constexpr std::int64_t ceil_div(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }
constexpr std::int64_t round_up(std::int64_t a, std::int64_t b) { return ceil_div(a, b) * b; }
constexpr std::int64_t bytes_of(Elem elem) { return elem == Elem::bf16 ? 2 : 4; }

const void* offset(const void* p, Elem elem, std::int64_t elements) {
  return p ? static_cast<const char*>(p) + elements * bytes_of(elem) : nullptr;
}
void* offset(void* p, Elem elem, std::int64_t elements) {
  return p ? static_cast<char*>(p) + elements * bytes_of(elem) : nullptr;
}

/// Part `i` of `parts` nearly equal parts of `total`.
struct Range {
  std::int64_t begin, end;
};
Range part_of(std::int64_t total, std::int64_t parts, std::int64_t i) {
  return {total * i / parts, total * (i + 1) / parts};
}

// A block of packed A tiles should stay in a core's second-level cache beside a panel of B; packed B in the shared one.
constexpr std::int64_t left_block_bytes = 768 << 10;
constexpr std::int64_t right_block_bytes = 6 << 20;
// A weight gradient contracts over many rows into a small output: shorter blocks leave its operands nearer.
constexpr std::int64_t max_depth = 1024, max_depth_by_col = 512;
constexpr std::int64_t run_rows = 2 * contraction_unit;
// A by_col tile is written in whole vectors, which run past its end.
constexpr std::int64_t tile_slack = max_tile_cols;

/// How a product is cut up. A stage is a group of `depths` blocks of K, `depth` long each, by `width` columns of B, packed
/// by all threads together. Then the units of the stage, `row_blocks` × `col_groups` of C, go to whichever thread is free:
/// no element of C depends on who computes it.
struct Blocking {
  std::int64_t depth, depths, width;
  std::int64_t tiles, row_blocks, col_groups;
  std::int64_t panel_floats, block_floats, tile_floats, right_floats, left_floats;
  std::int64_t partial_floats;  ///< sums between blocks of K, where the output cannot hold them

  Blocking(const MatrixKernels& kernels, ProductShape shape, TileLayout layout, const ProductOutput& output,
           int threads) {
    const std::int64_t depth_blocks = ceil_div(shape.k, layout == TileLayout::by_col ? max_depth_by_col : max_depth);
    depth = round_up(ceil_div(shape.k, depth_blocks), contraction_unit);
    panel_floats = depth * kernels.tile_cols;
    tile_floats = depth * kernels.tile_rows + tile_slack;

    const std::int64_t panels = ceil_div(shape.n, kernels.tile_cols);
    const std::int64_t panels_at_most = std::max<std::int64_t>(1, right_block_bytes / 4 / panel_floats);
    const std::int64_t stage_panels = ceil_div(panels, ceil_div(panels, panels_at_most));
    width = stage_panels * kernels.tile_cols;
    block_floats = stage_panels * panel_floats;
    depths = std::clamp<std::int64_t>(right_block_bytes / 4 / block_floats, 1, depth_blocks);
    right_floats = depths * block_floats;

    // Blocks of a dozen tiles use a panel often enough while it is near; a thread without work would be worse.
    tiles = ceil_div(shape.m, kernels.tile_rows);
    const std::int64_t tiles_at_most = std::max<std::int64_t>(1, left_block_bytes / 4 / tile_floats);
    row_blocks =
        std::max({std::int64_t{1}, ceil_div(tiles, tiles_at_most), std::min<std::int64_t>(4 * threads, tiles / 12),
                  std::min<std::int64_t>(threads, tiles / 4)});
    if (row_blocks >= threads) row_blocks = std::min(round_up(row_blocks, threads), tiles);
    tiles = std::min(round_up(tiles, row_blocks), shape.m);
    col_groups = std::min(ceil_div(threads, row_blocks), stage_panels);
    left_floats = round_up(ceil_div(tiles, row_blocks) * tile_floats, 16);

    const bool held_by_output = output.elem == Elem::f32 && !output.gelu;
    partial_floats = depth < shape.k && !held_by_output ? round_up(shape.m * shape.n, 16) : 0;
  }
};

/// Hands out the pieces of one stage after another to all threads: each of them draws until it gets none.
class Tickets {
 public:
  /// The next of `count` pieces for a thread that has seen `before` tickets of earlier stages, or -1.
  std::int64_t draw(std::int64_t before, std::int64_t count) {
    const std::int64_t ticket = next_.fetch_add(1, std::memory_order_relaxed) - before;
    return ticket < count ? ticket : -1;
  }

 private:
  std::atomic<std::int64_t> next_{0};
};

class Worker {
 public:
  Worker(const MatrixKernels& kernels, ProductShape shape, const LeftOperand& a, const RightOperand& b,
         const ProductOutput& output, const Blocking& blocking, float* scratch, Tickets& tickets, int thread,
         int threads)
      : kernels_(kernels), shape_(shape), a_(a), b_(b), output_(output), blocking_(blocking), tickets_(tickets),
        threads_(threads), right_(scratch), partial_(scratch + blocking.right_floats),
        left_(partial_ + blocking.partial_floats + thread * blocking.left_floats) {}

  void run() {
    const std::int64_t group = blocking_.depth * blocking_.depths;
    for (std::int64_t k = 0; k < shape_.k; k += group)
      for (std::int64_t n = 0; n < shape_.n; n += blocking_.width) {
        n_ = {n, std::min(shape_.n, n + blocking_.width)};
        const std::int64_t depths = ceil_div(std::min(group, shape_.k - k), blocking_.depth);
        if (k > 0 || n > 0) {
#pragma omp barrier
        }
        const bool straight = b_.orientation == Orientation::straight;
        const std::int64_t pieces = straight ? ceil_div(blocking_.depth, run_rows) : panels();
        for_pieces(depths * pieces, [&](std::int64_t piece) {
          set_depth(k, piece / pieces);
          if (straight)
            pack_right_rows(piece % pieces);
          else
            pack_right_panel(piece % pieces);
        });
#pragma omp barrier
        for_pieces(blocking_.row_blocks * blocking_.col_groups, [&](std::int64_t piece) {
          for (std::int64_t i = 0; i < depths; ++i) {
            set_depth(k, i);
            unit(piece / blocking_.col_groups, piece % blocking_.col_groups);
          }
        });
      }
  }

 private:
  template <class Body>
  void for_pieces(std::int64_t count, Body&& body) {
    for (;;) {
      const std::int64_t piece = tickets_.draw(drawn_, count);
      if (piece < 0) break;
      body(piece);
    }
    drawn_ += count + threads_;
  }

  void set_depth(std::int64_t group_begin, std::int64_t index) {
    k_.begin = group_begin + index * blocking_.depth;
    k_.end = std::min(shape_.k, k_.begin + blocking_.depth);
    block_ = right_ + index * blocking_.block_floats;
  }
  std::int64_t depth() const { return k_.end - k_.begin; }
  std::int64_t panels() const { return ceil_div(n_.end - n_.begin, kernels_.tile_cols); }

  void pack_right_panel(std::int64_t panel) {
    const std::int64_t n = n_.begin + panel * kernels_.tile_cols;
    kernels_.pack_panel_transposed(b_.round, static_cast<const float*>(b_.data) + n * b_.stride + k_.begin, b_.stride,
                                   depth(), std::min(kernels_.tile_cols, n_.end - n),
                                   block_ + panel * blocking_.panel_floats);
  }

  // Whole rows in short runs, because reading one panel's share of each row would defeat the hardware's prefetching.
  void pack_right_rows(std::int64_t run) {
    const std::int64_t begin = run * run_rows, rows = std::min(run_rows, depth() - begin);
    if (rows <= 0) return;
    for (std::int64_t p = 0; p < panels(); ++p) {
      const std::int64_t n = n_.begin + p * kernels_.tile_cols;
      kernels_.pack_panel(b_.elem, b_.round, offset(b_.data, b_.elem, (k_.begin + begin) * b_.stride + n), b_.stride,
                          rows, std::min(kernels_.tile_cols, n_.end - n),
                          block_ + p * blocking_.panel_floats + begin * kernels_.tile_cols);
    }
  }

  // Tiles differ by one row at most: a short last tile would wait for the latency of its few sums.
  std::int64_t tile_begin(std::int64_t tile) const { return part_of(shape_.m, blocking_.tiles, tile).begin; }

  void unit(std::int64_t row_block, std::int64_t col_group) {
    const Range tiles = part_of(blocking_.tiles, blocking_.row_blocks, row_block);
    const Range mine = part_of(panels(), blocking_.col_groups, col_group);
    pack_left(tiles, col_group == 0 && n_.begin == 0 ? a_.column_sums : nullptr);
    for (std::int64_t p = mine.begin; p < mine.end; ++p)
      for (std::int64_t t = tiles.begin; t < tiles.end; ++t)
        product(left_ + (t - tiles.begin) * blocking_.tile_floats, {tile_begin(t), tile_begin(t + 1)}, p);
  }

  void pack_left(Range tiles, float* sums) {
    if (a_.layout == TileLayout::by_row) {
      for (std::int64_t t = tiles.begin; t < tiles.end; ++t) {
        const std::int64_t m = tile_begin(t);
        kernels_.pack_tile_by_row(a_.elem, offset(a_.data, a_.elem, m * a_.stride + k_.begin), a_.stride,
                                  tile_begin(t + 1) - m, depth(), left_ + (t - tiles.begin) * blocking_.tile_floats);
      }
      return;
    }
    constexpr std::int64_t group = 64;
    std::array<std::int64_t, group + 1> begins{};
    for (std::int64_t t = tiles.begin; t < tiles.end; t += group) {
      const std::int64_t count = std::min(group, tiles.end - t);
      for (std::int64_t i = 0; i <= count; ++i) begins[static_cast<std::size_t>(i)] = tile_begin(t + i);
      kernels_.pack_tiles_by_col(a_.elem, offset(a_.data, a_.elem, k_.begin * a_.stride), a_.stride, depth(),
                                 begins.data(), count, shape_.m, left_ + (t - tiles.begin) * blocking_.tile_floats,
                                 blocking_.tile_floats, sums);
    }
  }

  void product(const float* tile, Range rows, std::int64_t panel) {
    const std::int64_t n = n_.begin + panel * kernels_.tile_cols;
    const bool first = k_.begin == 0, last = k_.end == shape_.k;
    TileArgs args{};
    args.a = tile;
    args.b = block_ + panel * blocking_.panel_floats;
    args.k = round_up(depth(), contraction_unit);
    args.layout = a_.layout;
    args.rows = rows.end - rows.begin;
    args.cols = std::min(kernels_.tile_cols, n_.end - n);
    args.elem = output_.elem;
    args.out = offset(output_.out, output_.elem, rows.begin * output_.stride + n);
    args.out_stride = output_.stride;
    if (blocking_.partial_floats == 0) {
      if (first) {
        add_ends(args, rows.begin, n);
      } else {
        args.residual = args.out;
        args.residual_stride = args.out_stride;
      }
    } else {
      float* partial = partial_ + rows.begin * shape_.n + n;
      if (!first) {
        args.partial = partial;
        args.partial_stride = shape_.n;
      }
      if (last) {
        add_ends(args, rows.begin, n);
      } else {
        args.elem = Elem::f32;
        args.out = partial;
        args.out_stride = shape_.n;
      }
    }
    kernels_.tile(args);
  }

  void add_ends(TileArgs& args, std::int64_t m, std::int64_t n) const {
    args.bias = output_.bias ? output_.bias + n : nullptr;
    args.gelu = output_.gelu;
    args.pre = offset(output_.pre, output_.elem, m * output_.pre_stride + n);
    args.pre_stride = output_.pre_stride;
    args.residual = offset(output_.residual, output_.elem, m * output_.residual_stride + n);
    args.residual_stride = output_.residual_stride;
  }

  const MatrixKernels& kernels_;
  ProductShape shape_;
  const LeftOperand& a_;
  const RightOperand& b_;
  const ProductOutput& output_;
  const Blocking& blocking_;
  Tickets& tickets_;
  int threads_;
  float* right_;
  float* partial_;
  float* left_;
  float* block_ = nullptr;  ///< packed B of the current block of K
  std::int64_t drawn_ = 0;
  Range k_{}, n_{};
};

}  // namespace

std::size_t product_scratch(const MatrixKernels& kernels, ProductShape shape, TileLayout layout,
                            const ProductOutput& output, int threads) {
  const Blocking blocking(kernels, shape, layout, output, threads);
  return static_cast<std::size_t>(blocking.right_floats + blocking.partial_floats + threads * blocking.left_floats) *
         sizeof(float);
}

void multiply(const MatrixKernels& kernels, ProductShape shape, const LeftOperand& a, const RightOperand& b,
              const ProductOutput& output, int threads, void* scratch) {
  const Blocking blocking(kernels, shape, a.layout, output, threads);
  Tickets tickets;
#pragma omp parallel num_threads(threads)
  Worker(kernels, shape, a, b, output, blocking, static_cast<float*>(scratch), tickets, omp_get_thread_num(),
         omp_get_num_threads())
      .run();
}

std::size_t few_rows_scratch(ProductShape shape) {
  return static_cast<std::size_t>(shape.m * round_up(shape.k, contraction_unit)) * sizeof(float);
}

void multiply_few_rows(const MatrixKernels& kernels, ProductShape shape, const LeftOperand& a, const RightOperand& b,
                       const ProductOutput& output, int threads, void* scratch) {
  const std::int64_t stride = round_up(shape.k, contraction_unit);
  auto* x = static_cast<float*>(scratch);
  for (std::int64_t r = 0; r < shape.m; ++r) {
    float* row = x + r * stride;
    if (a.elem == Elem::f32) {
      std::memcpy(row, static_cast<const float*>(a.data) + r * a.stride, static_cast<std::size_t>(shape.k) * 4);
    } else {
      const bf16* source = static_cast<const bf16*>(a.data) + r * a.stride;
      for (std::int64_t i = 0; i < shape.k; ++i) row[i] = static_cast<float>(source[i]);
    }
    std::fill(row + shape.k, row + stride, 0.0f);
  }
  const std::int64_t panels = ceil_div(shape.n, kernels.tile_cols);
#pragma omp parallel for num_threads(threads) schedule(static)
  for (std::int64_t p = 0; p < panels; ++p) {
    const std::int64_t n = p * kernels.tile_cols;
    TileArgs args{};
    args.rows = shape.m;
    args.cols = std::min(kernels.tile_cols, shape.n - n);
    args.bias = output.bias ? output.bias + n : nullptr;
    args.gelu = output.gelu;
    args.pre = offset(output.pre, output.elem, n);
    args.pre_stride = output.pre_stride;
    args.residual = offset(output.residual, output.elem, n);
    args.residual_stride = output.residual_stride;
    args.elem = output.elem;
    args.out = offset(output.out, output.elem, n);
    args.out_stride = output.stride;
    kernels.dot_panel(b.round, x, stride, shape.k, static_cast<const float*>(b.data) + n * b.stride, b.stride, args);
  }
}

}  // namespace weft::cpu
