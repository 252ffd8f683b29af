// Products with a weight; see core/kernels/linear.hpp. What cuBLASLt cannot do beside a product is done here after it.
#include "core/cuda/kernels/linear.hpp"

#include <algorithm>

#include "core/cuda/device/activation.hpp"
#include "core/cuda/device/numeric.hpp"
#include "core/cuda/device/rows.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/kernels/weight.hpp"
#include "core/cuda/launch.hpp"
#include "core/cuda/matmul.hpp"
#include "core/cuda/scratch.hpp"

namespace weft::cuda {
namespace {

/// y = act(y + bias) + residual, with the value before the activation to `pre`; all but y may be null.
template <class T, int Width>
struct Finish {
  static constexpr int threads = 256;
  T* y;
  const float* bias;
  const T* residual;
  T* pre;
  std::int64_t rows, cols, y_stride, residual_stride, pre_stride;
  bool gelu;

  WEFT_DEVICE void operator()(const Block& block) const {
    for_row_packs<Width>(block, rows, cols, [&](std::int64_t row) {
      return [this, row](std::int64_t col) {
        T* to = y + row * y_stride + col;
        const auto product = load_pack<Width>(to);
        Pack<float, Width> shift{};
        if (bias) shift = load_pack<Width>(bias + col);
        Pack<T, Width> added{}, before, out;
        if (residual) added = load_pack<Width>(residual + row * residual_stride + col);
        for (int k = 0; k < Width; ++k) {
          const float value = to_float(product.at[k]) + shift.at[k];
          before.at[k] = from_float<T>(value);
          out.at[k] = from_float<T>((gelu ? gelu_of(value) : value) + to_float(added.at[k]));
        }
        if (pre) store_pack(pre + row * pre_stride + col, before);
        store_pack(to, out);
      };
    });
  }
};

void finish(ExecContext& exec, const Matrix& y, const float* bias, const ConstMatrix& residual, const Matrix& pre,
            bool gelu) {
  dispatch_float(y.dtype, [&]<class T>() {
    const auto start = [&]<int Width>() {
      using Kernel = Finish<T, Width>;
      const Kernel kernel{static_cast<T*>(y.data),
                          bias,
                          static_cast<const T*>(residual.data),
                          static_cast<T*>(pre.data),
                          y.rows,
                          y.cols,
                          y.stride,
                          residual.stride,
                          pre.stride,
                          gelu};
      launch(exec, row_blocks<Kernel, Width>(y.rows, y.cols), kernel);
    };
    constexpr int width = pack_width<T>;
    const auto packs = [&](const ConstMatrix& matrix) {
      return can_pack<width>(static_cast<const T*>(matrix.data), y.cols, matrix.stride);
    };
    const bool packed = packs(y) && packs(residual) && packs(pre) && can_pack<width>(bias, y.cols, 0);
    packed ? start.template operator()<width>() : start.template operator()<1>();
  });
}

/// y[s, c] (= or +=) Σ of x[r, c] over slab s of slab_rows rows. A block takes one slab and `span` columns; its warps
/// take the slab's rows in turn.
template <class T, int Width>
struct ColumnSums {
  static constexpr int threads = 256;
  static constexpr int warps = threads / warp_threads;
  static constexpr int span = warp_threads * Width;
  static constexpr std::size_t shared_bytes = warps * span * sizeof(float);
  const T* x;
  float* y;
  std::int64_t rows, cols, stride, slab_rows;
  bool add;

  WEFT_DEVICE void operator()(const Block& block) const {
    const std::int64_t groups = ceil_div(cols, span), slab = block.index() / groups;
    const std::int64_t first = (block.index() - slab * groups) * span, col = first + block.lane() * Width;
    const std::int64_t end = (slab + 1) * slab_rows < rows ? (slab + 1) * slab_rows : rows;
    constexpr int at_once = 4;
    float sums[Width] = {};
    const auto add_rows = [&]<int Count>(std::int64_t row) {
      Pack<T, Width> packs[Count];
      WEFT_UNROLL
      for (int i = 0; i < Count; ++i) packs[i] = load_pack<Width>(x + (row + i * warps) * stride + col);
      WEFT_UNROLL
      for (int i = 0; i < Count; ++i)
        for (int k = 0; k < Width; ++k) sums[k] += to_float(packs[i].at[k]);
    };
    if (col < cols) {
      std::int64_t row = slab * slab_rows + block.warp();
      for (; row + (at_once - 1) * warps < end; row += at_once * warps) add_rows.template operator()<at_once>(row);
      for (; row < end; row += warps) add_rows.template operator()<1>(row);
    }
    auto* shared = block.shared<float>();
    for (int k = 0; k < Width; ++k) shared[(block.warp() * Width + k) * warp_threads + block.lane()] = sums[k];
    block.sync();
    for (int i = block.thread(); i < span && first + i < cols; i += threads) {
      float* to = y + slab * cols + first + i;
      float total = add ? *to : 0.0f;
      for (int warp = 0; warp < warps; ++warp) total += shared[(warp * Width + i % Width) * warp_threads + i / Width];
      *to = total;
    }
  }
};

/// How column sums of a matrix are taken: by slabs of rows first, whose sums are summed then. It depends on the shape
/// alone, so the same sums are taken on any device.
struct Slabs {
  std::int64_t count, rows;
};

Slabs slabs_of(const ConstMatrix& x) {
  constexpr std::int64_t most_blocks = 1024, least_rows = 64;
  const std::int64_t groups = ceil_div(x.cols, warp_threads * (x.dtype == DType::bf16 ? 8 : 4));
  const std::int64_t most = std::clamp<std::int64_t>(most_blocks / groups, 1, ceil_div(x.rows, least_rows));
  const std::int64_t rows = ceil_div(x.rows, most);
  return {ceil_div(x.rows, rows), rows};
}

void sum_slabs(ExecContext& exec, const ConstMatrix& x, const Slabs& slabs, bool add, float* y) {
  dispatch_float(x.dtype, [&]<class T>() {
    const auto* from = static_cast<const T*>(x.data);
    const auto start = [&]<int Width>() {
      using Kernel = ColumnSums<T, Width>;
      const Kernel kernel{from, y, x.rows, x.cols, x.stride, slabs.rows, add};
      launch(exec, slabs.count * ceil_div(x.cols, Kernel::span), kernel, Kernel::shared_bytes);
    };
    constexpr int width = pack_width<T>;
    can_pack<width>(from, x.cols, x.stride) ? start.template operator()<width>() : start.template operator()<1>();
  });
}

/// y[c] (= or +=) column sums of x. `partial` has room for slabs_of(x).count rows.
void column_sums(ExecContext& exec, const ConstMatrix& x, float* partial, bool add, float* y) {
  const Slabs slabs = slabs_of(x);
  if (slabs.count == 1) return sum_slabs(exec, x, slabs, add, y);
  sum_slabs(exec, x, slabs, false, partial);
  sum_slabs(exec, {partial, DType::f32, slabs.count, x.cols, x.cols}, {1, slabs.count}, add, y);
}

struct Zero {
  static constexpr int threads = 256;
  float* y;
  std::int64_t rows, cols, stride;
  WEFT_DEVICE void operator()(const Block& block) const {
    for_grid(block, rows * cols, [&](std::int64_t i) {
      const std::int64_t row = i / cols;
      y[row * stride + i - row * cols] = 0;
    });
  }
};

void forward(ExecContext& exec, View x, WeightRef w, View bias, Epilogue epilogue, View residual, MutView pre,
             MutView y) {
  const ConstMatrix in(x);
  const Matrix out(y);
  const bool gelu = epilogue == Epilogue::gelu, half = in.dtype == DType::bf16;
  check_same_rows("linear.forward", in, out);
  check_weight("linear.forward", ConstMatrix(w.value), out.cols, in.cols);
  WEFT_CHECK(in.dtype == out.dtype, "linear.forward: x is {}, y {}", name_of(x.dtype), name_of(y.dtype));
  WEFT_CHECK(!gelu || !residual, "linear.forward: a residual cannot follow GELU");
  if (in.rows == 0) return;
  const float* shift = bias ? vector_of<float>("linear.forward: bias", bias, out.cols) : nullptr;

  ScratchParts parts;
  const std::size_t workspace = parts.add(matmul_workspace(exec)), copy = parts.add(weight_scratch(w, in.dtype));
  const std::size_t half_bias = parts.add(shift && half ? static_cast<std::size_t>(out.cols) * sizeof(bf16) : 0);
  auto* scratch = static_cast<char*>(exec.scratch(parts.bytes()));

  MatmulArgs fused;
  fused.a = in;
  fused.b = weight_for(exec, w, in.dtype, scratch + copy);
  fused.transpose_b = true;
  fused.out = out;
  fused.workspace = scratch + workspace;
  fused.gelu = gelu;
  if (gelu && pre) fused.pre = Matrix(pre);
  if (residual) fused.added = ConstMatrix(residual);
  if (shift) fused.bias = half ? static_cast<const void*>(scratch + half_bias) : shift;
  if (matmul_fuses(exec, fused)) {
    if (shift && half) narrow(exec, shift, out.cols, reinterpret_cast<bf16*>(scratch + half_bias));
    return matmul(exec, fused);
  }

  MatmulArgs plain = fused;
  plain.bias = nullptr;
  plain.gelu = false;
  plain.pre = {};
  if (!adds_in_place(fused)) plain.added = {};
  matmul(exec, plain);
  finish(exec, out, shift, adds_in_place(fused) ? ConstMatrix() : fused.added, fused.pre, gelu);
}

void backward_data(ExecContext& exec, View dy, WeightRef w, Write write, MutView dx) {
  const ConstMatrix in(dy);
  const Matrix out(dx);
  check_same_rows("linear.backward_data", in, out);
  check_weight("linear.backward_data", ConstMatrix(w.value), in.cols, out.cols);
  WEFT_CHECK(in.dtype == out.dtype, "linear.backward_data: dy is {}, dx {}", name_of(dy.dtype), name_of(dx.dtype));
  if (in.rows == 0) return;
  ScratchParts parts;
  const std::size_t workspace = parts.add(matmul_workspace(exec)), copy = parts.add(weight_scratch(w, in.dtype));
  auto* scratch = static_cast<char*>(exec.scratch(parts.bytes()));
  MatmulArgs product;
  product.a = in;
  product.b = weight_for(exec, w, in.dtype, scratch + copy);
  product.out = out;
  if (write == Write::add) product.added = out;
  product.workspace = scratch + workspace;
  matmul(exec, product);
}

void backward_weight(ExecContext& exec, View dy, View x, Write write, MutView dw, MutView db) {
  const ConstMatrix left(dy), right(x);
  const Matrix out(dw);
  const bool add = write == Write::add;
  check_same_rows("linear.backward_weight", left, right);
  check_weight("linear.backward_weight", out, left.cols, right.cols);
  WEFT_CHECK(left.dtype == right.dtype, "linear.backward_weight: dy is {}, x {}", name_of(dy.dtype), name_of(x.dtype));
  float* sums = db ? vector_of<float>("linear.backward_weight: db", db, left.cols) : nullptr;
  if (left.rows == 0) {
    if (!add) zero(exec, out);
    if (!add && sums) zero(exec, {sums, DType::f32, 1, left.cols, left.cols});
    return;
  }
  ScratchParts parts;
  const std::size_t workspace = parts.add(matmul_workspace(exec));
  const std::int64_t partial_rows = sums ? slabs_of(left).count : 0;
  const std::size_t partial = parts.add(static_cast<std::size_t>(partial_rows * left.cols) * sizeof(float));
  auto* scratch = static_cast<char*>(exec.scratch(parts.bytes()));
  auto* partials = reinterpret_cast<float*>(scratch + partial);

  MatmulArgs product;
  product.a = left;
  product.transpose_a = true;
  product.b = right;
  product.out = out;
  if (add) product.added = out;
  product.workspace = scratch + workspace;
  product.sums = add ? partials : sums;  // fused sums replace what is there
  if (sums && matmul_fuses(exec, product)) {
    matmul(exec, product);
    if (add) sum_slabs(exec, {partials, DType::f32, 1, left.cols, left.cols}, {1, 1}, true, sums);
    return;
  }
  product.sums = nullptr;
  matmul(exec, product);
  if (sums) column_sums(exec, left, partials, add, sums);
}

}  // namespace

void zero(ExecContext& exec, const Matrix& matrix) {
  const Zero kernel{static_cast<float*>(matrix.data), matrix.rows, matrix.cols, matrix.stride};
  launch(exec, blocks_for<Zero>(matrix.rows * matrix.cols), kernel);
}

void bind_linear(KernelTable& table) {
  table.linear.forward.bind(forward);
  table.linear.backward_data.bind(backward_data);
  table.linear.backward_weight.bind(backward_weight);
  table.linear.cross_entropy.bind(cross_entropy);
  table.linear.shard_logits.bind(shard_logits);
  table.linear.shard_cross_entropy.bind(shard_cross_entropy);
}

}  // namespace weft::cuda
