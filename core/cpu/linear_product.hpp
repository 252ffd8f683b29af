// The blocked, threaded matrix product that every linear kernel is made of. Each element of C is one chain of f32
// fused multiply-adds in the order of the contraction, so the result has the same bits for any number of threads.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/cpu/vec/matrix.hpp"

namespace weft::cpu {

/// A[M,K]: by_row reads it row-major, by_col reads a row-major Aᵀ[K,M].
struct LeftOperand {
  const void* data = nullptr;
  Elem elem = Elem::f32;
  std::int64_t stride = 0;
  TileLayout layout = TileLayout::by_row;
  float* column_sums = nullptr;  ///< by_col only: gets += the sums over K of each row of A
};

enum class Orientation : std::uint8_t { straight, transposed };

/// B[K,N]: straight reads it row-major, transposed reads a row-major f32 Bᵀ[N,K].
struct RightOperand {
  const void* data = nullptr;
  Elem elem = Elem::f32;
  std::int64_t stride = 0;
  Orientation orientation = Orientation::straight;
  Round round = Round::none;
};

/// C = gelu(A·B + bias) + residual; see TileArgs.
struct ProductOutput {
  void* out = nullptr;
  Elem elem = Elem::f32;
  std::int64_t stride = 0;
  const float* bias = nullptr;
  bool gelu = false;
  void* pre = nullptr;
  std::int64_t pre_stride = 0;
  const void* residual = nullptr;
  std::int64_t residual_stride = 0;
};

struct ProductShape {
  std::int64_t m = 0, n = 0, k = 0;
};

/// Bytes of scratch that `multiply` wants.
std::size_t product_scratch(const MatrixKernels& kernels, ProductShape shape, TileLayout layout,
                            const ProductOutput& output, int threads);

/// All of M, N, K at least 1; scratch aligned to 64 bytes.
void multiply(const MatrixKernels& kernels, ProductShape shape, const LeftOperand& a, const RightOperand& b,
              const ProductOutput& output, int threads, void* scratch);

std::size_t few_rows_scratch(ProductShape shape);

/// The same for few rows and a transposed B, bound by reading B.
void multiply_few_rows(const MatrixKernels& kernels, ProductShape shape, const LeftOperand& a, const RightOperand& b,
                       const ProductOutput& output, int threads, void* scratch);

/// Up to this many rows, multiply_few_rows is the faster.
inline constexpr std::int64_t few_rows = 8;

}  // namespace weft::cpu
