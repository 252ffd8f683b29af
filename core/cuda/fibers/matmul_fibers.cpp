// matmul.hpp in plain loops over host memory, for tests without a GPU.
#include "core/cuda/device/activation.hpp"
#include "core/cuda/device/numeric.hpp"
#include "core/cuda/fibers/fiber_state.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/matmul.hpp"

namespace weft::cuda {

namespace {

template <class T>
T* at(const Matrix& matrix, std::int64_t row, std::int64_t col) {
  return static_cast<T*>(matrix.data) + row * matrix.stride + col;
}

/// op(matrix) in f64.
double value_at(const ConstMatrix& matrix, bool transposed, std::int64_t row, std::int64_t col) {
  const std::int64_t index = transposed ? col * matrix.stride + row : row * matrix.stride + col;
  return static_cast<double>(matrix.dtype == DType::bf16 ? to_float(static_cast<const bf16*>(matrix.data)[index])
                                                         : static_cast<const float*>(matrix.data)[index]);
}

template <class T>
void store(const MatmulArgs& args, std::int64_t row, std::int64_t col, double total) {
  if (args.bias) total += static_cast<double>(to_float(static_cast<const T*>(args.bias)[col]));
  if (args.pre) *at<T>(args.pre, row, col) = from_float<T>(static_cast<float>(total));
  if (args.gelu) total = static_cast<double>(gelu_of(static_cast<float>(total)));
  if (args.added) total += value_at(args.added, false, row, col);
  *at<T>(args.out, row, col) = from_float<T>(static_cast<float>(total));
}

void multiply(const MatmulArgs& args) {
  const auto [m, n, k] = shape_of(args);
  dispatch_float(args.out.dtype, [&, m = m, n = n, k = k]<class T>() {
    for (std::int64_t row = 0; row < m; ++row) {
      for (std::int64_t col = 0; col < n; ++col) {
        double total = 0;
        for (std::int64_t i = 0; i < k; ++i)
          total += value_at(args.a, args.transpose_a, row, i) * value_at(args.b, args.transpose_b, i, col);
        store<T>(args, row, col, total);
      }
      if (!args.sums) continue;
      double total = 0;
      for (std::int64_t i = 0; i < k; ++i) total += value_at(args.a, args.transpose_a, row, i);
      args.sums[row] = static_cast<float>(total);
    }
  });
}

}  // namespace

std::size_t matmul_workspace(const ExecContext&) { return 0; }

// As cuBLASLt may, so that the kernels' own ways are taken as they are on the GPU.
bool matmul_fuses(ExecContext&, const MatmulArgs& args) { return is_plain(args) || may_fuse(args); }

void matmul(ExecContext& exec, const MatmulArgs& args) {
  fibers::enqueue(exec, [args] { multiply(args); });
}

std::unique_ptr<BackendState> make_state(const DeviceOptions&) { return nullptr; }

}  // namespace weft::cuda
