#include "core/ops/channels.hpp"

namespace weft::ops {

Tensor channel_gate(OpContext& cx, GateFunction phi, const Tensor& x, const Tensor& ab) {
  WEFT_CHECK(ab.numel() == 2 * x.shape()[-1], "gates {} for {}", to_string(ab.shape()), to_string(x.shape()));
  Tensor y = cx.empty(x.shape(), x.dtype());
  cx.kernels().channel.gate(cx.exec, phi, x.view(), ab.view(), y.mut());
  if (!cx.recording()) return y;
  const auto element = static_cast<double>(size_of(x.dtype()));
  cx.tape->record({"channel_gate",
                   {&x, &ab},
                   {&y},
                   {},
                   elementwise_cost(x.numel(), 1, 2 * element),
                   elementwise_cost(x.numel(), 3, 3 * element)},
                  [phi, x = x.detached(), ab = ab.detached()](BackwardPass& pass) {
                    Tensor dx = pass.empty_like(x), dab = pass.empty_like(ab);
                    pass.exec().kernels().channel.gate_backward(pass.exec(), phi, x.view(), ab.view(),
                                                                pass.grad(0).view(), dx.mut(), dab.mut());
                    pass.give(0, std::move(dx));
                    pass.give(1, std::move(dab));
                  });
  return y;
}

Tensor boom(OpContext& cx, const Tensor& x, std::int64_t width) {
  Shape shape = x.shape();
  WEFT_CHECK(width > 0 && shape[-1] % width == 0, "{} has no chunks of {}", to_string(shape), width);
  shape[-1] = width;
  Tensor y = cx.empty(shape, x.dtype());
  cx.kernels().channel.boom(cx.exec, x.view(), y.mut());
  if (!cx.recording()) return y;
  // FLOPs of GELU are counted as 10 an element.
  const double bytes = static_cast<double>(x.view().bytes() + y.view().bytes()) / static_cast<double>(x.numel());
  const double twice = bytes + static_cast<double>(size_of(x.dtype()));
  cx.tape->record(
      {"boom", {&x}, {&y}, {}, elementwise_cost(x.numel(), 11, bytes), elementwise_cost(x.numel(), 11, twice)},
      [x = x.detached()](BackwardPass& pass) {
        Tensor dx = pass.empty_like(x);
        pass.exec().kernels().channel.boom_backward(pass.exec(), x.view(), pass.grad(0).view(), dx.mut());
        pass.give(0, std::move(dx));
      });
  return y;
}

Tensor parameter_row(OpContext& cx, Parameter& parameter) {
  const Shape row{1, parameter.shape().numel()};
  Tensor y = cx.empty(row, DType::f32);
  {
    const ParameterUse use(&parameter, Pass::forward);
    cx.kernels().elementwise.copy(cx.exec, parameter.value().view().reshaped(row), y.mut());
  }
  if (!cx.recording()) return y;
  const Cost cost = elementwise_cost(y.numel(), 0, 8);
  cx.tape->record({"parameter", {}, {&y}, {&parameter}, cost, cost}, [row, &parameter](BackwardPass& pass) {
    const Write write = parameter.next_grad_write();
    const MutView to = parameter.grad().mut().reshaped(row);
    const ElementwiseKernels& kernels = pass.exec().kernels().elementwise;
    write == Write::add ? kernels.accumulate(pass.exec(), pass.grad(0).view(), to)
                        : kernels.copy(pass.exec(), pass.grad(0).view(), to);
  });
  return y;
}

}  // namespace weft::ops
