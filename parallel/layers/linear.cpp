#include "parallel/layers/linear.hpp"

#include "parallel/layers/collective_pairs.hpp"

namespace weft {
namespace {

constexpr auto tp = static_cast<std::size_t>(Axis::tp);

Tensor as_rows(const Tensor& x) { return x.reshaped({x.view().rows(), x.view().cols()}).detached(); }

Tensor make(ExecContext& exec, std::int64_t rows, std::int64_t cols, DType dtype) {
  return Tensor::empty(exec.memory(), {rows, cols}, dtype, MemoryUse::activation);
}

Tensor part_of(const Tensor& x, const Range& rows) { return x.defined() ? x.slice(rows.begin, rows.end) : Tensor(); }

Write write_of(Parameter& weight, Parameter* bias) {
  const Write write = weight.next_grad_write();
  if (bias) WEFT_CHECK(bias->next_grad_write() == write, "{} and {} are used apart", weight.name(), bias->name());
  return write;
}

View value_of(const Parameter* bias) { return bias ? bias->value().view() : View{}; }
MutView grad_of(const Parameter* bias) { return bias ? bias->grad().mut() : MutView{}; }

// Gradients of the weight from all rows at once, so that their order of summation does not depend on the chunks.
void weight_gradient(ExecContext& exec, Parameter& weight, Parameter* bias, const Tensor& dy, const Tensor& x) {
  const Write write = write_of(weight, bias);
  exec.kernels().linear.backward_weight(exec, dy.view(), x.view(), write, weight.grad().mut(), grad_of(bias));
}

struct ColumnBackward {
  TensorGroup group;
  StreamRows rows;
  Tensor x;    ///< of the stream here
  Tensor pre;  ///< before GELU, if there is one
  Parameter* weight;
  Parameter* bias;

  void operator()(BackwardPass& pass) const {
    ExecContext& exec = pass.exec();
    const std::int64_t width = x.view().cols();
    Tensor dy = as_rows(pass.grad(0));
    if (pre.defined()) {
      const Tensor dpre = make(exec, rows.rows, dy.view().cols(), dy.dtype());
      exec.kernels().elementwise.gelu_backward(exec, pre.view(), dy.view(), dpre.mut());
      dy = dpre;
    }
    const Tensor local = as_rows(x);
    Tensor all = local;
    StreamTransfer regather(group, rows), sums(group, rows);
    if (rows.shared()) {
      all = make(exec, rows.filled(), width, x.dtype());
      regather.gather(local, all);
    }
    Tensor dlocal;
    if (pass.needs(0)) {
      const ParameterUse use(weight, Pass::backward);
      const Tensor dall = make(exec, rows.filled(), width, x.dtype());
      clear_filling(exec, rows, dall);
      dlocal = rows.shared() ? make(exec, rows.local(), width, x.dtype()) : dall;
      for (std::int64_t i = 0; i < rows.chunks(); ++i) {
        exec.kernels().linear.backward_data(exec, part_of(dy, rows.part(i)).view(), weight->weight(), Write::overwrite,
                                            part_of(dall, rows.part(i)).mut());
        sums.sum(i, dall, dlocal);
      }
    }
    regather.wait();
    weight_gradient(exec, *weight, bias, dy, all.slice(0, rows.rows));
    sums.wait();
    if (dlocal.defined()) pass.give(0, dlocal.reshaped(x.shape()));
  }
};

struct RowBackward {
  TensorGroup group;
  StreamRows rows;
  Tensor x;
  Parameter* weight;
  Parameter* bias;

  void operator()(BackwardPass& pass) const {
    ExecContext& exec = pass.exec();
    const Tensor dlocal = as_rows(pass.grad(0)), x_rows = as_rows(x);
    Tensor dy = dlocal;
    StreamTransfer transfer(group, rows);
    if (rows.shared()) {
      dy = make(exec, rows.filled(), dlocal.view().cols(), dlocal.dtype());
      transfer.gather(dlocal, dy);
    }
    if (pass.needs(0)) {
      const ParameterUse use(weight, Pass::backward);
      const Tensor dx = make(exec, rows.rows, x.view().cols(), x.dtype());
      for (std::int64_t i = 0; i < rows.chunks(); ++i) {
        transfer.wait(i);
        exec.kernels().linear.backward_data(exec, part_of(dy, rows.part(i)).view(), weight->weight(), Write::overwrite,
                                            part_of(dx, rows.part(i)).mut());
      }
      pass.give(0, dx.reshaped(x.shape()));
    }
    transfer.wait();
    weight_gradient(exec, *weight, bias, dy.slice(0, rows.rows), x_rows);
  }
};

Cost twice(Cost cost) { return {2 * cost.flops, 2 * cost.bytes, cost.depth, cost.min_depth}; }

}  // namespace

ColumnLinear::ColumnLinear(const BuildContext& build, std::int64_t in, std::int64_t out,
                           const std::vector<WeightRows>& held, nn::LinearOptions options)
    : ColumnLinear(build, in, out, held,
                   LinearInit{Init::normal(options.init_deviation),
                              options.bias ? std::optional(Init::zeros()) : std::nullopt}) {}

ColumnLinear::ColumnLinear(const BuildContext& build, std::int64_t in, std::int64_t out,
                           const std::vector<WeightRows>& held, const LinearInit& init)
    : group_(build) {
  Slice weight = Slice::whole({out, in}), bias = Slice::whole({out});
  if (group_.size() > 1) {
    weight.boxes.clear();
    bias.boxes.clear();
    for (const WeightRows& part : held) {
      weight.boxes.push_back({{part.rows.begin, 0}, {part.rows.size(), in}, part.copies, part.copy});
      bias.boxes.push_back({{part.rows.begin}, {part.rows.size()}, part.copies, part.copy});
    }
    weight.placement[tp] = bias.placement[tp] = Placement::sharded;
  }
  weight_ = &build.build.param("weight", std::move(weight), init.weight);
  if (init.bias) bias_ = &build.build.param("bias", std::move(bias), *init.bias);
}

Tensor ColumnLinear::forward(OpContext& cx, const Tensor& x, Epilogue epilogue) const {
  if (group_.size() == 1) return ops::linear(cx, x, *weight_, bias_, epilogue);
  const StreamRows rows = group_.rows(cx);
  const std::int64_t n = weight_->shape()[0], k = weight_->shape()[1];
  WEFT_CHECK(x.view().cols() == k && x.view().rows() == rows.local(), "{} into {} [.., {}]", to_string(x.shape()),
             weight_->name(), k);
  const Tensor local = as_rows(x);
  Tensor all = local;
  StreamTransfer transfer(group_, rows);
  if (rows.shared()) {
    all = make(cx.exec, rows.filled(), k, x.dtype());
    transfer.gather(local, all);
  }
  const Tensor y_rows = make(cx.exec, rows.rows, n, x.dtype());
  Tensor pre;
  if (epilogue == Epilogue::gelu && cx.recording()) pre = make(cx.exec, rows.rows, n, x.dtype());
  {
    const ParameterUse use_weight(weight_, Pass::forward), use_bias(bias_, Pass::forward);
    // Without a collective to hide, one product is the fastest.
    const std::int64_t chunks = rows.shared() ? rows.chunks() : 1;
    for (std::int64_t i = 0; i < chunks; ++i) {
      transfer.wait(i);
      const Range part = rows.shared() ? rows.part(i) : Range{0, rows.rows};
      cx.kernels().linear.forward(cx.exec, part_of(all, part).view(), weight_->weight(), value_of(bias_), epilogue, {},
                                  part_of(pre, part).mut(), part_of(y_rows, part).mut());
    }
  }
  Tensor y = y_rows.reshaped(TensorGroup::whole_shape(cx, n));
  if (!cx.recording()) return y;
  const Cost forward = linear_cost(rows.rows, n, k, x.dtype());
  cx.tape->record({"column_linear", {&x}, {&y}, {weight_, bias_}, forward, twice(forward)},
                  ColumnBackward{group_, rows, x.detached(), pre, weight_, bias_});
  return y;
}

RowLinear::RowLinear(const BuildContext& build, std::int64_t in, std::int64_t out, Range held,
                     nn::LinearOptions options)
    : group_(build) {
  Slice weight = Slice::whole({out, in});
  if (group_.size() > 1) {
    weight.boxes = {{{0, held.begin}, {out, held.size()}}};
    weight.placement[tp] = Placement::sharded;
  }
  weight_ = &build.build.param("weight", std::move(weight), Init::normal(options.init_deviation));
  // Every rank has all rows of dy, and so all of the bias's gradient.
  if (options.bias) bias_ = &build.build.param("bias", Slice::whole({out}), Init::zeros());
}

Tensor RowLinear::forward(OpContext& cx, const Tensor& x) const {
  if (group_.size() == 1) return ops::linear(cx, x, *weight_, bias_);
  const StreamRows rows = group_.rows(cx);
  const std::int64_t n = weight_->shape()[0], k = weight_->shape()[1];
  WEFT_CHECK(x.view().cols() == k && x.view().rows() == rows.rows, "{} into {} [.., {}]", to_string(x.shape()),
             weight_->name(), k);
  const Tensor x_rows = as_rows(x), all = make(cx.exec, rows.filled(), n, x.dtype());
  clear_filling(cx.exec, rows, all);
  const Tensor local = rows.shared() ? make(cx.exec, rows.local(), n, x.dtype()) : all;
  {
    const ParameterUse use_weight(weight_, Pass::forward), use_bias(bias_, Pass::forward);
    StreamTransfer transfer(group_, rows);
    // One rank's part of the sum has the bias.
    const View bias = group_.rank() == 0 ? value_of(bias_) : View{};
    for (std::int64_t i = 0; i < rows.chunks(); ++i) {
      cx.kernels().linear.forward(cx.exec, part_of(x_rows, rows.part(i)).view(), weight_->weight(), bias,
                                  Epilogue::none, {}, {}, part_of(all, rows.part(i)).mut());
      transfer.sum(i, all, local);
    }
    transfer.wait();
  }
  Tensor y = local.reshaped(group_.stream_shape(cx, n));
  if (!cx.recording()) return y;
  const Cost forward = linear_cost(rows.rows, n, k, x.dtype());
  cx.tape->record({"row_linear", {&x}, {&y}, {weight_, bias_}, forward, twice(forward)},
                  RowBackward{group_, rows, x.detached(), weight_, bias_});
  return y;
}

}  // namespace weft
