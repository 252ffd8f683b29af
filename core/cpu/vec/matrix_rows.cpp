// Products of few rows, which are bound by reading the weight, and the rows of the loss.
#include "core/cpu/vec/matrix_parts.hpp"

namespace weft::cpu::WEFT_ISA {

namespace {

constexpr int row_group = 4, col_group = lanes == 16 ? 4 : 2;

/// c[r][j] = x[r]·bt[j] for `rows` rows and `cols` rows of Bᵀ.
template <Round round, int rows, int cols>
void dots(const float* x, std::int64_t x_stride, std::int64_t k, const float* bt, std::int64_t bt_stride, float* c) {
  Vec sums[rows][cols] = {};
  for_vectors(0, k, [&](std::int64_t i, auto n) {
    Vec column[cols];
#pragma GCC unroll 4
    for (int j = 0; j < cols; ++j) column[j] = rounded<round>(load_n(bt + j * bt_stride + i, n));
#pragma GCC unroll 4
    for (int r = 0; r < rows; ++r) {
      const Vec row = load(x + r * x_stride + i);
#pragma GCC unroll 4
      for (int j = 0; j < cols; ++j) sums[r][j] = fma(row, column[j], sums[r][j]);
    }
  });
#pragma GCC unroll 4
  for (int r = 0; r < rows; ++r)
#pragma GCC unroll 4
    for (int j = 0; j < cols; ++j) c[r * tile_cols + j] = sum(sums[r][j]);
}

template <Round round, int cols>
void dots_of(std::int64_t rows, const float* x, std::int64_t x_stride, std::int64_t k, const float* bt,
             std::int64_t bt_stride, float* c) {
  switch (rows) {
    case 1: return dots<round, 1, cols>(x, x_stride, k, bt, bt_stride, c);
    case 2: return dots<round, 2, cols>(x, x_stride, k, bt, bt_stride, c);
    case 3: return dots<round, 3, cols>(x, x_stride, k, bt, bt_stride, c);
    default: return dots<round, 4, cols>(x, x_stride, k, bt, bt_stride, c);
  }
}

template <Round round>
void dot_panel(const float* x, std::int64_t x_stride, std::int64_t k, const float* bt, std::int64_t bt_stride,
               const TileArgs& args) {
  alignas(64) float c[max_tile_rows * tile_cols];
  for (std::int64_t r = 0; r < args.rows; r += row_group) {
    const std::int64_t rows = smaller(row_group, args.rows - r);
    std::int64_t j = 0;
    for (; j + col_group <= args.cols; j += col_group)
      dots_of<round, col_group>(rows, x + r * x_stride, x_stride, k, bt + j * bt_stride, bt_stride,
                                c + r * tile_cols + j);
    for (; j < args.cols; ++j)
      dots_of<round, 1>(rows, x + r * x_stride, x_stride, k, bt + j * bt_stride, bt_stride, c + r * tile_cols + j);
  }
  if (args.bias)
    for (std::int64_t r = 0; r < args.rows; ++r)
      for (std::int64_t j = 0; j < args.cols; ++j) c[r * tile_cols + j] += args.bias[j];
  finish_tile(c, args);
}

}  // namespace

void dot_panel(Round round, const float* x, std::int64_t x_stride, std::int64_t k, const float* bt,
               std::int64_t bt_stride, const TileArgs& args) {
  if (round == Round::bf16)
    dot_panel<Round::bf16>(x, x_stride, k, bt, bt_stride, args);
  else
    dot_panel<Round::none>(x, x_stride, k, bt, bt_stride, args);
}

namespace {

float highest_of(const float* logits, std::int64_t count) {
  Vec highest[2] = {splat(-__builtin_inff()), splat(-__builtin_inff())};
  std::int64_t i = 0;
  for (; i + 2 * lanes <= count; i += 2 * lanes) {
    highest[0] = max(load(logits + i), highest[0]);
    highest[1] = max(load(logits + i + lanes), highest[1]);
  }
  highest[0] = max(highest[0], highest[1]);
  float top = highest[0][0];
  for (int lane = 1; lane < lanes; ++lane) top = highest[0][lane] > top ? highest[0][lane] : top;
  for (; i < count; ++i) top = logits[i] > top ? logits[i] : top;
  return top;
}

// exp(logits − base). Probabilities below 1e-30 are 0: as denormal numbers they would slow down the products that follow.
WEFT_INLINE Vec exp_from(Vec logits, Vec base) {
  const Vec power = (logits - base) * splat(1.44269504088896341f);
  const Vec bounded = power < splat(-100.0f) ? splat(-100.0f) : power;
  return power < splat(-100.0f) ? Vec{} : exp2(bounded);
}

/// Σ exp(logits − top); with `keep` the powers take the logits' place.
template <bool keep, class Logit>
float sum_of_powers(Logit* logits, std::int64_t count, float top) {
  Vec sums = {};
  for_vectors(0, count, [&](std::int64_t at, auto n) {
    Vec e = exp_from(load_n(logits + at, n), splat(top));
    if constexpr (keep) store_n(logits + at, n, e);
    if (n < lanes)
      for (int lane = 0; lane < lanes; ++lane) e[lane] = lane < n ? e[lane] : 0;
    sums += e;
  });
  return sum(sums);
}

}  // namespace

float loss_row(float* logits, std::int64_t count, std::int64_t target, float scale) {
  const float at_target = logits[target], top = highest_of(logits, count);
  const float total = scale != 0 ? sum_of_powers<true>(logits, count, top) : sum_of_powers<false>(logits, count, top);
  if (scale != 0) {
    const Vec factor = splat(scale / total);
    for_vectors(0, count, [&](std::int64_t at, auto n) { store_n(logits + at, n, load_n(logits + at, n) * factor); });
    logits[target] -= scale;
  }
  return static_cast<float>(__builtin_log(static_cast<double>(total)) + static_cast<double>(top) -
                            static_cast<double>(at_target));
}

float lse_row(const float* logits, std::int64_t count) {
  const float top = highest_of(logits, count);
  const double total = sum_of_powers<false>(logits, count, top);
  return static_cast<float>(__builtin_log(total) + static_cast<double>(top));
}

void gradient_row(float* logits, std::int64_t count, float lse, std::int64_t target, float scale) {
  const Vec factor = splat(scale), base = splat(lse);
  for_vectors(0, count, [&](std::int64_t at, auto n) {
    store_n(logits + at, n, exp_from(load_n(logits + at, n), base) * factor);
  });
  if (target >= 0 && target < count) logits[target] -= scale;
}

extern const MatrixKernels matrix_kernels = {
    tile_rows,    tile_cols, pack_tile_by_row, pack_tiles_by_col, pack_panel_transposed, pack_panel,
    tile_product, dot_panel, loss_row,         lse_row,           gradient_row};

}  // namespace weft::cpu::WEFT_ISA
