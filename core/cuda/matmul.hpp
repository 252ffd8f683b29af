// The one matrix product that the linear kernels are made of. On the GPU cuBLASLt computes it (matmul_cublaslt.cpp), in
// tests without one plain loops do (fibers/matmul_fibers.cpp).
#pragma once
#include <cstddef>

#include "core/kernels/matrix_view.hpp"
#include "core/kernels/exec.hpp"

namespace weft::cuda {

/// out[M,N] = gelu(op(A)[M,K]·op(B)[K,N] + bias) + added, summed in f32; true f32 products for f32 (no TF32).
struct MatmulArgs {
  ConstMatrix a, b;  ///< as they lie in memory; both f32 or both bf16
  bool transpose_a = false, transpose_b = false;
  Matrix out;           ///< f32 or bf16
  ConstMatrix added{};  ///< of out's shape and dtype, may be out itself; empty: nothing is added

  const void* bias = nullptr;  ///< [N] of out's dtype
  bool gelu = false;           ///< tanh form; nothing can be added then
  Matrix pre{};                ///< where the value before GELU goes; of out's shape and dtype
  float* sums = nullptr;       ///< [M] sums of op(A)'s rows, for f32 `out` and without a bias

  void* workspace = nullptr;  ///< matmul_workspace bytes, aligned to 256
};

struct MatmulShape {
  std::int64_t m, n, k;
};

/// Throws Error if the operands do not fit together.
inline MatmulShape shape_of(const MatmulArgs& args) {
  const ConstMatrix &a = args.a, &b = args.b;
  const Matrix& out = args.out;
  const std::int64_t m = args.transpose_a ? a.cols : a.rows, k = args.transpose_a ? a.rows : a.cols;
  const std::int64_t n = args.transpose_b ? b.rows : b.cols, inner = args.transpose_b ? b.cols : b.rows;
  WEFT_CHECK(k == inner && k > 0 && out.rows == m && out.cols == n && a.dtype == b.dtype,
             "a product of {} [{}, {}] and {} [{}, {}] into [{}, {}]", name_of(a.dtype), m, k, name_of(b.dtype), inner,
             n, out.rows, out.cols);
  if (args.added) check_same_shape("what is added to a product", args.added, out);
  if (args.pre) check_same_shape("the value before GELU", args.pre, out);
  WEFT_CHECK(!args.pre || args.gelu, "a value before GELU without GELU");
  WEFT_CHECK(!args.gelu || !args.added, "nothing can be added after GELU");
  WEFT_CHECK(!args.sums || (out.dtype == DType::f32 && !args.bias && !args.gelu), "row sums beside an epilogue");
  return {m, n, k};
}

inline bool adds_in_place(const MatmulArgs& args) { return args.added.data == args.out.data; }

/// Whether there is nothing to fuse: no epilogue, and nothing added but what `out` holds.
inline bool is_plain(const MatmulArgs& args) {
  return !args.bias && !args.gelu && !args.sums && (!args.added || adds_in_place(args));
}

/// cuBLASLt's rules of alignment for what it may do beside a product. Its GELU takes an approximate tanh, which f32
/// would show.
inline bool may_fuse(const MatmulArgs& args) {
  const auto aligned = [](const auto& matrix) {
    return (reinterpret_cast<std::uintptr_t>(matrix.data) | static_cast<std::uintptr_t>(matrix.row_bytes())) % 16 == 0;
  };
  return aligned(args.out) && aligned(args.added) && aligned(args.pre) && args.pre.stride % 8 == 0 &&
         reinterpret_cast<std::uintptr_t>(args.bias) % 16 == 0 && (!args.sums || aligned(args.a)) &&
         (!args.gelu || args.out.dtype == DType::bf16);
}

/// Bytes of workspace that every product wants.
std::size_t matmul_workspace(const ExecContext& exec);

/// Whether matmul takes `args` as they are, which it always does if they are plain. If not, the caller must strip them
/// and do the rest itself.
bool matmul_fuses(ExecContext& exec, const MatmulArgs& args);

/// Throws Error if it cannot be computed so.
void matmul(ExecContext& exec, const MatmulArgs& args);

}  // namespace weft::cuda
