// The register-tiled product: `rows` broadcasts of A times two vectors of B for each contraction element, sums in
// registers over the whole contraction.
#include <utility>

#include "core/cpu/vec/activation.hpp"
#include "core/cpu/vec/matrix_parts.hpp"

namespace weft::cpu::WEFT_ISA {

namespace {

template <class T>
void finish(const float* c, const TileArgs& args) {
  for (std::int64_t r = 0; r < args.rows; ++r) {
    const float* row = c + r * tile_cols;
    for_vectors(0, args.cols, [&](std::int64_t i, auto n) {
      Vec v = load(row + i);
      if (args.partial) v += load_n(args.partial + r * args.partial_stride + i, n);
      if (args.pre) store_n(typed<T>(args.pre) + r * args.pre_stride + i, n, v);
      if (args.gelu) v = gelu_of(v);
      if (args.residual) v += load_n(typed<T>(args.residual) + r * args.residual_stride + i, n);
      store_n(typed<T>(args.out) + r * args.out_stride + i, n, v);
    });
  }
}

WEFT_INLINE Vec load_up_to(const float* p, int vector, std::int64_t count) {
  const std::int64_t left = count - vector * lanes;
  return left >= lanes ? load(p + vector * lanes) : left > 0 ? load_part(p + vector * lanes, left) : Vec{};
}

template <class T, int rows>
WEFT_INLINE void store_sums(const Vec (&sums)[rows][panel_vectors], const TileArgs& args) {
  T* out = typed<T>(args.out);
  const T* residual = typed<T>(args.residual);
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < panel_vectors; ++v) {
      Vec value = sums[r][v];
      if (residual) value += load(residual + r * args.residual_stride + v * lanes);
      store(out + r * args.out_stride + v * lanes, value);
    }
}

template <int rows, TileLayout layout, bool ahead>
void product(const TileArgs& args) {
  constexpr int row_step = layout == TileLayout::by_row ? contraction_unit : 1;
  constexpr int k_step = layout == TileLayout::by_row ? 1 : tile_rows;
  const bool whole = args.cols == tile_cols;
  Vec sums[rows][panel_vectors];
#pragma GCC unroll 2
  for (int v = 0; v < panel_vectors; ++v) {
    const Vec start = !args.bias ? Vec{} : whole ? load(args.bias + v * lanes) : load_up_to(args.bias, v, args.cols);
#pragma GCC unroll 16
    for (int r = 0; r < rows; ++r) sums[r][v] = start;
  }
  const float* a = args.a;
  const float* b = args.b;
  // The lines that the tile will write are fetched while it is computed, a row in each block.
  const char* line = typed<char>(args.out);
  const std::int64_t line_step = args.out_stride * (args.elem == Elem::bf16 ? 2 : 4);
  const std::int64_t second_line = args.elem == Elem::bf16 ? 0 : 64;
  std::int64_t lines = rows;
  const char* next = typed<char>(args.ahead);
  for (std::int64_t block = args.k / contraction_unit; block > 0; --block) {
    __builtin_prefetch(line, 1);
    __builtin_prefetch(line + second_line, 1);
    line += --lines > 0 ? line_step : 0;
    if constexpr (ahead)
      for (std::int64_t i = 0; i < args.ahead_lines; ++i, next += 64) __builtin_prefetch(next, 0, 2);
    for (int outer = 0; outer < contraction_unit; outer += 4) {
#pragma GCC unroll 4
      for (int k = 0; k < 4; ++k) {
        Vec column[panel_vectors];
#pragma GCC unroll 2
        for (int v = 0; v < panel_vectors; ++v) column[v] = load(b + k * tile_cols + v * lanes);
#pragma GCC unroll 16
        for (int r = 0; r < rows; ++r) {
          const Vec x = splat(a[r * row_step + k * k_step]);
#pragma GCC unroll 2
          for (int v = 0; v < panel_vectors; ++v) sums[r][v] = fma(x, column[v], sums[r][v]);
        }
      }
      a += 4 * k_step;
      b += 4 * tile_cols;
    }
    if constexpr (layout == TileLayout::by_row) a += (tile_rows - 1) * contraction_unit;
  }
  if (whole && !args.partial && !args.gelu && args.elem == Elem::f32) return store_sums<float>(sums, args);
  if (whole && !args.partial && !args.gelu) return store_sums<Half>(sums, args);
  alignas(64) float c[rows * tile_cols];
#pragma GCC unroll 16
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 2
    for (int v = 0; v < panel_vectors; ++v) store(c + r * tile_cols + v * lanes, sums[r][v]);
  finish_tile(c, args);
}

using Product = void (*)(const TileArgs&);

template <TileLayout layout, bool ahead, int... rows>
constexpr auto products(std::integer_sequence<int, rows...>) {
  struct {
    Product by_rows[sizeof...(rows)];
  } table{{product<rows + 1, layout, ahead>...}};
  return table;
}
constexpr auto products_by_row = products<TileLayout::by_row, false>(std::make_integer_sequence<int, tile_rows>());
constexpr auto products_ahead = products<TileLayout::by_row, true>(std::make_integer_sequence<int, tile_rows>());
constexpr auto products_by_col = products<TileLayout::by_col, false>(std::make_integer_sequence<int, tile_rows>());

}  // namespace

void finish_tile(const float* c, const TileArgs& args) {
  if (args.elem == Elem::bf16)
    finish<Half>(c, args);
  else
    finish<float>(c, args);
}

void tile_product(const TileArgs& args) {
  if (args.ahead)
    products_ahead.by_rows[args.rows - 1](args);
  else if (args.layout == TileLayout::by_row)
    products_by_row.by_rows[args.rows - 1](args);
  else
    products_by_col.by_rows[args.rows - 1](args);
}

}  // namespace weft::cpu::WEFT_ISA
