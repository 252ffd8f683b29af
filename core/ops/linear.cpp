#include "core/ops/linear.hpp"

namespace weft::ops {
namespace {

Shape with_last(Shape shape, std::int64_t size) {
  shape[-1] = size;
  return shape;
}

View rows(const Tensor& tensor) {
  return tensor.defined() ? tensor.view().reshaped({tensor.view().rows(), tensor.view().cols()}) : View{};
}

MutView mut_rows(const Tensor& tensor) {
  return tensor.defined() ? tensor.mut().reshaped({tensor.view().rows(), tensor.view().cols()}) : MutView{};
}

}  // namespace

Tensor linear(OpContext& cx, const Tensor& x, Parameter& weight, Parameter* bias, Epilogue epilogue) {
  const std::int64_t n = weight.shape()[0], k = weight.shape()[1];
  WEFT_CHECK(x.shape()[-1] == k, "{} of width {} into {}", to_string(x.shape()), k, weight.name());
  Tensor y = cx.empty(with_last(x.shape(), n), x.dtype());
  Tensor pre;
  if (epilogue == Epilogue::gelu && cx.recording()) pre = cx.empty(y.shape(), y.dtype());
  {
    const ParameterUse use_weight(&weight, Pass::forward), use_bias(bias, Pass::forward);
    cx.kernels().linear.forward(cx.exec, rows(x), weight.weight(), bias ? bias->value().view() : View{}, epilogue, {},
                                mut_rows(pre), mut_rows(y));
  }
  if (!cx.recording()) return y;

  const std::int64_t m = rows(x).shape[0];
  const Cost forward = linear_cost(m, n, k, x.dtype());
  Cost backward = forward;
  backward.flops *= x.on_tape() ? 2 : 1;
  backward.bytes *= x.on_tape() ? 2 : 1;
  cx.tape->record({"linear", {&x}, {&y}, {&weight, bias}, forward, backward}, [x = x.detached(), pre, &weight,
                                                                               bias](BackwardPass& pass) {
    ExecContext& exec = pass.exec();
    const KernelTable& kernels = exec.kernels();
    Tensor dy = pass.grad(0);
    if (pre.defined()) {
      const Tensor dpre = pass.empty_like(pre);
      kernels.elementwise.gelu_backward(exec, pre.view(), dy.view(), dpre.mut());
      dy = dpre;
    }
    if (pass.needs(0)) {
      const ParameterUse use(&weight, Pass::backward);
      Tensor dx = pass.empty_like(x);
      kernels.linear.backward_data(exec, rows(dy), weight.weight(), Write::overwrite, mut_rows(dx));
      pass.give(0, std::move(dx));
    }
    const Write write = weight.next_grad_write();
    MutView dbias;
    if (bias) {
      WEFT_CHECK(bias->next_grad_write() == write, "{} and {} are used apart", weight.name(), bias->name());
      dbias = bias->grad().mut();
    }
    kernels.linear.backward_weight(exec, rows(dy), rows(x), write, weight.grad().mut(), dbias);
  });
  return y;
}

CrossEntropy cross_entropy(OpContext& cx, const Tensor& h, Parameter& weight, const LossTargets& targets) {
  const View h_MD = rows(h);
  const std::int64_t m = h_MD.shape[0], d = h_MD.shape[1], v = weight.shape()[0];
  WEFT_CHECK(weight.shape()[1] == d, "width {} into {}", d, weight.name());
  CrossEntropy result{cx.empty({m}, DType::f32), cx.empty({1}, DType::f64)};
  Tensor dh;
  MutView dweight;
  Write write = Write::overwrite;
  if (cx.recording()) {
    dh = cx.empty(h.shape(), h.dtype());
    write = weight.next_grad_write();
    dweight = weight.grad().mut();
  }
  {
    const ParameterUse use(&weight, Pass::forward);
    cx.kernels().linear.cross_entropy(cx.exec, h_MD, weight.weight(), targets.targets, targets.weights, targets.scale,
                                      write, result.rows.mut(), mut_rows(dh), dweight);
  }
  cx.kernels().elementwise.dot(cx.exec, result.rows.view(), targets.weights, Write::overwrite, result.loss.mut());
  if (targets.scale != 1) cx.kernels().elementwise.scale(cx.exec, targets.scale, result.loss.mut());
  if (!cx.recording()) return result;

  const Cost forward = linear_cost(m, v, d, h.dtype());
  Cost backward = forward;
  backward.flops *= 2;
  backward.bytes *= 2;
  cx.tape->record({"cross_entropy", {&h}, {&result.loss}, {&weight}, forward, backward},
                  [dh](BackwardPass& pass) { pass.give(0, dh); });
  return result;
}

}  // namespace weft::ops
