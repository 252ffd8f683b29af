// y = x + alpha·a with alpha on the device; see core/kernels/elementwise.hpp.
#include <algorithm>

#include "core/cuda/device/numeric.hpp"
#include "core/cuda/device/reduce.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/launch.hpp"
#include "core/kernels/check.hpp"

namespace weft::cuda {
namespace {

constexpr std::int64_t most_parts = 1024;

template <class T>
struct ScaledAdd {
  static constexpr int threads = 256;
  const T* x;
  const T* a;
  const float* alpha;
  T* y;
  std::int64_t count;

  WEFT_DEVICE void operator()(const Block& block) const {
    const float factor = *alpha;
    for_grid(block, count, [&](std::int64_t i) { y[i] = from_float<T>(to_float(x[i]) + factor * to_float(a[i])); });
  }
};

/// da, and one part of Σ a·dy for each block.
template <class T>
struct ScaledAddBackward {
  static constexpr int threads = 256;
  const T* a;
  const float* alpha;
  const T* dy;
  T* da;
  double* parts;
  std::int64_t count;

  WEFT_DEVICE void operator()(const Block& block) const {
    const float factor = *alpha;
    double sum = 0;
    for_grid(block, count, [&](std::int64_t i) {
      const float d = to_float(dy[i]);
      sum += static_cast<double>(to_float(a[i])) * static_cast<double>(d);
      da[i] = from_float<T>(factor * d);
    });
    sum = reduce_block(block, sum, Sum{}, block.shared<double>());
    if (block.thread() == 0) parts[block.index()] = sum;
  }
};

struct SumParts {
  static constexpr int threads = 256;
  const double* parts;
  std::int64_t count;
  bool add;
  float* sum;

  WEFT_DEVICE void operator()(const Block& block) const {
    double total = 0;
    for_block(block, count, [&](std::int64_t i) { total += parts[i]; });
    total = reduce_block(block, total, Sum{}, block.shared<double>());
    if (block.thread() == 0) *sum = static_cast<float>(add ? static_cast<double>(*sum) + total : total);
  }
};

void scaled_add(ExecContext& exec, View x, View a, View alpha, MutView y) {
  check_given(x, x.shape, x.dtype, "x");
  check_given(a, x.shape, x.dtype, "a");
  check_given(y, x.shape, x.dtype, "y");
  check_given(alpha, {1}, DType::f32, "alpha");
  dispatch_float(x.dtype, [&]<class T>() {
    using Kernel = ScaledAdd<T>;
    launch(exec, blocks_for<Kernel>(x.numel()), Kernel{x.as<T>(), a.as<T>(), floats(alpha), y.as<T>(), x.numel()});
  });
}

void scaled_add_backward(ExecContext& exec, View a, View alpha, View dy, Write write, MutView da, MutView dalpha) {
  check_given(a, a.shape, a.dtype, "a");
  check_given(dy, a.shape, a.dtype, "dy");
  check_given(da, a.shape, a.dtype, "da");
  check_given(alpha, {1}, DType::f32, "alpha");
  check_given(dalpha, {1}, DType::f32, "dalpha");
  auto* parts = static_cast<double*>(exec.scratch(most_parts * sizeof(double)));
  dispatch_float(a.dtype, [&]<class T>() {
    using Kernel = ScaledAddBackward<T>;
    const std::int64_t blocks = std::min(most_parts, blocks_for<Kernel>(a.numel()));
    launch(exec, blocks, Kernel{a.as<T>(), floats(alpha), dy.as<T>(), da.as<T>(), parts, a.numel()},
           reduce_bytes<double>);
    launch(exec, 1, SumParts{parts, blocks, write == Write::add, floats(dalpha)}, reduce_bytes<double>);
  });
}

}  // namespace

void bind_scaled_add(KernelTable& table) {
  table.elementwise.scaled_add.bind(scaled_add);
  table.elementwise.scaled_add_backward.bind(scaled_add_backward);
}

}  // namespace weft::cuda
