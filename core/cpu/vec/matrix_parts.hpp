// The functions behind MatrixKernels and the tile sizes of this instruction set.
#pragma once
#include "core/cpu/vec/matrix.hpp"
#include "core/cpu/vec/simd.hpp"

namespace weft::cpu::WEFT_ISA {

// Two vectors of columns; as many rows as leave registers for them and for one broadcast.
inline constexpr int panel_vectors = 2;
#if defined(__AVX512F__)
inline constexpr int tile_rows = 14;
#elif defined(__AVX2__)
inline constexpr int tile_rows = 6;
#else
inline constexpr int tile_rows = 5;
#endif
inline constexpr int tile_cols = panel_vectors * lanes;

template <class T>
WEFT_INLINE const T* typed(const void* p) {
  return static_cast<const T*>(p);
}
template <class T>
WEFT_INLINE T* typed(void* p) {
  return static_cast<T*>(p);
}

/// The value after rounding to bf16 (to nearest, ties to even; a NaN stays one), without leaving f32.
template <Round round>
WEFT_INLINE Vec rounded(Vec v) {
  if constexpr (round == Round::none) return v;
  const VecU word = reinterpret_cast<VecU>(v);
  const Vec nearest = reinterpret_cast<Vec>((word + 0x7fffu + ((word >> 16) & 1u)) & 0xffff0000u);
  return v == v ? nearest : v;
}

void pack_tile_by_row(Elem elem, const void* a, std::int64_t stride, std::int64_t rows, std::int64_t k, float* tile);
void pack_tiles_by_col(Elem elem, const void* at, std::int64_t stride, std::int64_t k, const std::int64_t* begins,
                       std::int64_t count, std::int64_t readable, float* tiles, std::int64_t tile_stride, float* sums);
void pack_panel_transposed(Round round, const float* bt, std::int64_t stride, std::int64_t k, std::int64_t cols,
                           float* panel);
void pack_panel(Elem elem, Round round, const void* b, std::int64_t stride, std::int64_t k, std::int64_t cols,
                float* panel);
void tile_product(const TileArgs& args);
void dot_panel(Round round, const float* x, std::int64_t x_stride, std::int64_t k, const float* bt,
               std::int64_t bt_stride, const TileArgs& args);
float loss_row(float* logits, std::int64_t count, std::int64_t target, float scale);

/// What follows the product of a tile and its bias, whose sums are in c[rows][tile_cols].
void finish_tile(const float* c, const TileArgs& args);

}  // namespace weft::cpu::WEFT_ISA
