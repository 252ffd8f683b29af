// Packing of operands into the tiles and panels of MatrixKernels.
#include "core/cpu/vec/matrix_parts.hpp"

namespace weft::cpu::WEFT_ISA {

namespace {

template <class T>
void pack_rows(const T* a, std::int64_t stride, std::int64_t rows, std::int64_t k, float* tile) {
  constexpr std::int64_t block = tile_rows * contraction_unit;
  for (std::int64_t r = 0; r < rows; ++r) {
    const T* row = a + r * stride;
    float* out = tile + r * contraction_unit;
    std::int64_t i = 0;
    for (; i + contraction_unit <= k; i += contraction_unit, out += block)
      for (int v = 0; v < contraction_unit; v += lanes) store(out + v, load(row + i + v));
    if (i < k)
      for (int v = 0; v < contraction_unit; v += lanes)
        store(out + v,
              i + v < k ? (k - i - v >= lanes ? load(row + i + v) : load_part(row + i + v, k - i - v)) : Vec{});
  }
}

constexpr int tile_vectors = (tile_rows + lanes - 1) / lanes;

template <class T, bool with_sums>
void pack_cols(const T* at, std::int64_t stride, std::int64_t k, std::int64_t begin, std::int64_t end,
               std::int64_t readable, float* tile, float* sums) {
  const bool whole = begin + tile_vectors * lanes <= readable;
  Vec total[tile_vectors] = {};
  const auto copy_row = [&](const T* row, float* out, auto&& load_vector) {
    for (int v = 0; v < tile_vectors; ++v) {
      const Vec values = load_vector(row + v * lanes, v);
      if constexpr (with_sums) total[v] += values;
      store(out + v * lanes, values);
    }
  };
  const T* row = at + begin;
  if (whole) {
    for (std::int64_t i = 0; i < k; ++i, row += stride, tile += tile_rows)
      copy_row(row, tile, [](const T* p, int) { return load(p); });
  } else {
    for (std::int64_t i = 0; i < k; ++i, row += stride, tile += tile_rows)
      copy_row(row, tile, [&](const T* p, int v) {
        const std::int64_t left = smaller(readable - begin - v * lanes, lanes);
        return left == lanes ? load(p) : left > 0 ? load_part(p, left) : Vec{};
      });
  }
  if constexpr (with_sums)
    for (int v = 0; v < tile_vectors; ++v)
      for (std::int64_t i = 0; i < lanes && begin + v * lanes + i < end; ++i)
        sums[begin + v * lanes + i] += total[v][i];
}

// Rows go in short runs, so that the cache lines that neighbouring tiles share are still near when the second one reads.
constexpr std::int64_t run_rows = 16;

template <class T>
void pack_all_cols(const T* at, std::int64_t stride, std::int64_t k, const std::int64_t* begins, std::int64_t count,
                   std::int64_t readable, float* tiles, std::int64_t tile_stride, float* sums) {
  const std::int64_t padded = round_up(k, contraction_unit);
  for (std::int64_t i = 0; i < k; i += run_rows) {
    const std::int64_t rows = smaller(run_rows, k - i);
    for (std::int64_t t = 0; t < count; ++t) {
      float* tile = tiles + t * tile_stride + i * tile_rows;
      if (sums)
        pack_cols<T, true>(at + i * stride, stride, rows, begins[t], begins[t + 1], readable, tile, sums);
      else
        pack_cols<T, false>(at + i * stride, stride, rows, begins[t], begins[t + 1], readable, tile, sums);
    }
  }
  for (std::int64_t t = 0; t < count; ++t)
    for (std::int64_t i = k * tile_rows; i < padded * tile_rows; ++i) tiles[t * tile_stride + i] = 0;
}

template <Round round>
void transposed(const float* bt, std::int64_t stride, std::int64_t k, std::int64_t cols, float* panel) {
  for (std::int64_t i = 0; i < round_up(k, contraction_unit); i += lanes) {
    const std::int64_t depth = smaller(k - i, lanes);
    for (int c = 0; c < tile_cols; c += lanes) {
      Vec square[lanes];
      if (depth == lanes && c + lanes <= cols) {
#pragma GCC unroll 16
        for (int j = 0; j < lanes; ++j) square[j] = rounded<round>(load(bt + (c + j) * stride + i));
      } else {
        for (int j = 0; j < lanes; ++j) {
          const float* row = bt + (c + j) * stride + i;
          square[j] = c + j >= cols || depth <= 0 ? Vec{}
                      : depth == lanes            ? rounded<round>(load(row))
                                                  : rounded<round>(load_part(row, depth));
        }
      }
      transpose(square);
#pragma GCC unroll 16
      for (int j = 0; j < lanes; ++j) store(panel + (i + j) * tile_cols + c, square[j]);
    }
  }
}

template <class T, Round round>
void straight(const T* b, std::int64_t stride, std::int64_t k, std::int64_t cols, float* panel) {
  if (cols == tile_cols) {
    for (std::int64_t i = 0; i < k; ++i)
#pragma GCC unroll 2
      for (int v = 0; v < panel_vectors; ++v)
        store(panel + i * tile_cols + v * lanes, rounded<round>(load(b + i * stride + v * lanes)));
  } else {
    for (std::int64_t i = 0; i < k; ++i)
      for (int v = 0; v < panel_vectors; ++v) {
        const std::int64_t left = smaller(cols - v * lanes, lanes);
        const T* p = b + i * stride + v * lanes;
        store(panel + i * tile_cols + v * lanes, rounded<round>(left == lanes ? load(p)
                                                                : left > 0    ? load_part(p, left)
                                                                              : Vec{}));
      }
  }
  for (std::int64_t i = k * tile_cols; i < round_up(k, contraction_unit) * tile_cols; ++i) panel[i] = 0;
}

}  // namespace

void pack_tile_by_row(Elem elem, const void* a, std::int64_t stride, std::int64_t rows, std::int64_t k, float* tile) {
  if (elem == Elem::bf16)
    pack_rows(typed<Half>(a), stride, rows, k, tile);
  else
    pack_rows(typed<float>(a), stride, rows, k, tile);
}

void pack_tiles_by_col(Elem elem, const void* at, std::int64_t stride, std::int64_t k, const std::int64_t* begins,
                       std::int64_t count, std::int64_t readable, float* tiles, std::int64_t tile_stride, float* sums) {
  if (elem == Elem::bf16)
    pack_all_cols(typed<Half>(at), stride, k, begins, count, readable, tiles, tile_stride, sums);
  else
    pack_all_cols(typed<float>(at), stride, k, begins, count, readable, tiles, tile_stride, sums);
}

void pack_panel_transposed(Round round, const float* bt, std::int64_t stride, std::int64_t k, std::int64_t cols,
                           float* panel) {
  if (round == Round::bf16)
    transposed<Round::bf16>(bt, stride, k, cols, panel);
  else
    transposed<Round::none>(bt, stride, k, cols, panel);
}

void pack_panel(Elem elem, Round round, const void* b, std::int64_t stride, std::int64_t k, std::int64_t cols,
                float* panel) {
  if (elem == Elem::bf16)
    straight<Half, Round::none>(typed<Half>(b), stride, k, cols, panel);
  else if (round == Round::bf16)
    straight<float, Round::bf16>(typed<float>(b), stride, k, cols, panel);
  else
    straight<float, Round::none>(typed<float>(b), stride, k, cols, panel);
}

}  // namespace weft::cpu::WEFT_ISA
