#include "core/cpu/linear.hpp"

#include <algorithm>
#include <cstring>

#include "core/cpu/cross_entropy.hpp"
#include "core/cpu/matrix_view.hpp"
#include "core/cpu/multiplier.hpp"

namespace weft::cpu {

namespace {

Round rounding_for(Elem elem) { return elem == Elem::bf16 ? Round::bf16 : Round::none; }

template <const MatrixKernels& kernels>
void product(ExecContext& exec, const Product& job) {
  const Multiplier multiplier(kernels, exec);
  void* scratch = exec.scratch(multiplier.scratch(job));
  multiplier.run(job, scratch);
}

template <const MatrixKernels& kernels>
void forward(ExecContext& exec, View x, WeightRef w, View bias, Epilogue epilogue, View residual, MutView pre,
             MutView y) {
  const ConstMatrix in(x), weight(w.value);
  const Matrix out(y);
  const bool gelu = epilogue == Epilogue::gelu;
  check_same_rows("linear.forward", in, out);
  check_weight("linear.forward", weight, out.cols, in.cols);
  WEFT_CHECK(in.dtype == out.dtype, "linear.forward: x is {}, y {}", name_of(x.dtype), name_of(y.dtype));
  WEFT_CHECK(!gelu || !residual, "linear.forward: a residual cannot follow GELU");
  if (in.rows == 0) return;
  ProductOutput output{out.data, elem_of(out), out.stride};
  if (bias) output.bias = vector_of<float>("linear.forward: bias", bias, out.cols);
  output.gelu = gelu;
  if (gelu && pre) {
    const Matrix before(pre);
    check_same_shape("linear.forward: pre", before, out);
    output.pre = before.data;
    output.pre_stride = before.stride;
  }
  if (residual) {
    const ConstMatrix added(residual);
    check_same_shape("linear.forward: residual", added, out);
    output.residual = added.data;
    output.residual_stride = added.stride;
  }
  product<kernels>(exec, {{in.rows, out.cols, in.cols},
                          {in.data, elem_of(in), in.stride, TileLayout::by_row},
                          {weight.data, Elem::f32, weight.stride, Orientation::transposed, rounding_for(elem_of(in))},
                          output,
                          &w});
}

template <const MatrixKernels& kernels>
void backward_data(ExecContext& exec, View dy, WeightRef w, Write write, MutView dx) {
  const ConstMatrix in(dy), weight(w.value);
  const Matrix out(dx);
  check_same_rows("linear.backward_data", in, out);
  check_weight("linear.backward_data", weight, in.cols, out.cols);
  WEFT_CHECK(in.dtype == out.dtype, "linear.backward_data: dy is {}, dx {}", name_of(dy.dtype), name_of(dx.dtype));
  if (in.rows == 0) return;
  ProductOutput output{out.data, elem_of(out), out.stride};
  if (write == Write::add) {
    output.residual = out.data;
    output.residual_stride = out.stride;
  }
  product<kernels>(exec, {{in.rows, out.cols, in.cols},
                          {in.data, elem_of(in), in.stride, TileLayout::by_row},
                          {weight.data, Elem::f32, weight.stride, Orientation::straight, rounding_for(elem_of(in))},
                          output,
                          &w});
}

template <const MatrixKernels& kernels>
void backward_weight(ExecContext& exec, View dy, View x, Write write, MutView dw, MutView db) {
  const ConstMatrix left(dy), right(x);
  const Matrix out(dw);
  check_same_rows("linear.backward_weight", left, right);
  check_weight("linear.backward_weight", out, left.cols, right.cols);
  WEFT_CHECK(left.dtype == right.dtype, "linear.backward_weight: dy is {}, x {}", name_of(dy.dtype), name_of(x.dtype));
  float* sums = db ? vector_of<float>("linear.backward_weight: db", db, left.cols) : nullptr;
  if (sums && write == Write::overwrite) std::fill_n(sums, left.cols, 0.0f);
  if (left.rows == 0) {
    if (write == Write::overwrite) zero(out);
    return;
  }
  ProductOutput output{out.data, elem_of(out), out.stride};
  if (write == Write::add) {
    output.residual = out.data;
    output.residual_stride = out.stride;
  }
  product<kernels>(exec, {{left.cols, right.cols, left.rows},
                          {left.data, elem_of(left), left.stride, TileLayout::by_col, sums},
                          {right.data, elem_of(right), right.stride, Orientation::straight, Round::none},
                          output,
                          nullptr});
}

template <const MatrixKernels& kernels>
void loss_of_linear(ExecContext& exec, View h, WeightRef w, View targets, View weights, float scale, Write write,
                    MutView loss, MutView dh, MutView dw) {
  cpu::cross_entropy(kernels, exec, h, w, targets, weights, scale, write, loss, dh, dw);
}

template <const MatrixKernels& kernels>
void logits_of_shard(ExecContext& exec, View h, WeightRef w, View targets, VocabShard shard, MutView logits,
                     MutView stats) {
  shard_logits(kernels, exec, h, w, targets, shard, logits, stats);
}

template <const MatrixKernels& kernels>
void loss_of_shard(ExecContext& exec, View h, WeightRef w, View targets, View weights, float scale, VocabShard shard,
                   View stats, Write write, MutView logits, MutView loss, MutView dh, MutView dw) {
  shard_cross_entropy(kernels, exec, h, w, targets, weights, scale, shard, stats, write, logits, loss, dh, dw);
}

template <const MatrixKernels& kernels>
void bind_kernels(LinearKernels& slots) {
  slots.forward.bind(forward<kernels>);
  slots.backward_data.bind(backward_data<kernels>);
  slots.backward_weight.bind(backward_weight<kernels>);
  slots.cross_entropy.bind(loss_of_linear<kernels>);
  slots.shard_logits.bind(logits_of_shard<kernels>);
  slots.shard_cross_entropy.bind(loss_of_shard<kernels>);
}

}  // namespace

void bind_linear(KernelTable& table, Isa isa) {
  switch (isa) {
    case Isa::portable: return bind_kernels<portable::matrix_kernels>(table.linear);
    case Isa::v3: return bind_kernels<v3::matrix_kernels>(table.linear);
    case Isa::v4: return bind_kernels<v4::matrix_kernels>(table.linear);
  }
}

}  // namespace weft::cpu
