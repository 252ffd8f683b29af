// Building blocks of matrix products C[M,N] = A[M,K]·B[K,N] of one instruction set: packing, and a product of register
// tiles with what follows it. As kernels.hpp this page holds data alone; everything is serial.
#pragma once
#include <cstdint>

#include "core/cpu/vec/kernels.hpp"

namespace weft::cpu {

/// Contraction elements per block of a packed row tile; packed tiles and panels are padded with zeros to a multiple.
inline constexpr std::int64_t contraction_unit = 16;
/// No instruction set has larger tiles than this.
inline constexpr std::int64_t max_tile_rows = 16, max_tile_cols = 32;

/// How a tile of A is packed. `by_row`: [k/16][tile_rows][16], from a row-major A. `by_col`: [k][tile_rows], from a
/// row-major Aᵀ.
enum class TileLayout : std::uint8_t { by_row, by_col };

/// Whether values of the master weight are rounded to bf16 while they are packed.
enum class Round : std::uint8_t { none, bf16 };

/// One tile of C: rows × cols at most tile_rows × tile_cols.
struct TileArgs {
  const float* a;  ///< packed tile
  const float* b;  ///< packed panel [k][tile_cols]
  std::int64_t k;  ///< a multiple of contraction_unit
  TileLayout layout;
  std::int64_t rows, cols;
  const float* bias;     ///< [cols], what the sums start from; null: 0
  const float* partial;  ///< f32, added: the sum over earlier blocks of the contraction; null: none
  std::int64_t partial_stride;
  bool gelu;  ///< after both
  void* pre;  ///< the value before GELU; null: not stored
  std::int64_t pre_stride;
  const void* residual;  ///< added last, may be out's memory; null: none
  std::int64_t residual_stride;
  Elem elem;  ///< of pre and residual, and of out
  void* out;
  std::int64_t out_stride;
  const void* ahead;         ///< by_row: fetched into the second-level cache meanwhile; null: nothing
  std::int64_t ahead_lines;  ///< of 64 bytes, for each contraction_unit of k
};

struct MatrixKernels {
  std::int64_t tile_rows, tile_cols;

  /// rows [<= tile_rows, k] of a row-major A into one by_row tile.
  void (*pack_tile_by_row)(Elem, const void* a, std::int64_t stride, std::int64_t rows, std::int64_t k, float* tile);
  /// `count` columns of k rows of Aᵀ into by_col tiles: tile t takes columns [begins[t], begins[t + 1]) and starts at
  /// tiles + t·tile_stride; past each tile's end up to tile_cols floats are clobbered. Adds the sums of the columns to
  /// sums[] if that is not null. `readable` columns of Aᵀ may be read from column 0 on.
  void (*pack_tiles_by_col)(Elem, const void* at, std::int64_t stride, std::int64_t k, const std::int64_t* begins,
                            std::int64_t count, std::int64_t readable, float* tiles, std::int64_t tile_stride,
                            float* sums);
  /// A panel [k][tile_cols] from cols <= tile_cols rows of a row-major f32 Bᵀ.
  void (*pack_panel_transposed)(Round, const float* bt, std::int64_t stride, std::int64_t k, std::int64_t cols,
                                float* panel);
  /// A panel [k][tile_cols] from cols <= tile_cols columns of a row-major B.
  void (*pack_panel)(Elem, Round, const void* b, std::int64_t stride, std::int64_t k, std::int64_t cols, float* panel);

  void (*tile)(const TileArgs&);

  /// A tile of few rows straight from the unpacked f32 Bᵀ: x f32 [args.rows][k, padded with zeros to x_stride], args.cols
  /// rows of Bᵀ. Reads nothing of args before `rows`.
  void (*dot_panel)(Round, const float* x, std::int64_t x_stride, std::int64_t k, const float* bt,
                    std::int64_t bt_stride, const TileArgs&);

  /// One row of softmax cross-entropy: returns lse − logits[target] and, if scale is not 0, replaces the logits by
  /// scale·(softmax − onehot(target)).
  float (*loss_row)(float* logits, std::int64_t count, std::int64_t target, float scale);
  /// log Σ exp(logits).
  float (*lse_row)(const float* logits, std::int64_t count);
  /// Replaces the logits by scale·(exp(logits − lse) − onehot(target)); a target outside [0, count) is another shard's.
  void (*gradient_row)(float* logits, std::int64_t count, float lse, std::int64_t target, float scale);
};

namespace portable {
extern const MatrixKernels matrix_kernels;
}
namespace v3 {
extern const MatrixKernels matrix_kernels;
}
namespace v4 {
extern const MatrixKernels matrix_kernels;
}

}  // namespace weft::cpu
