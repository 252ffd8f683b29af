#include "core/ops/activation.hpp"

namespace weft::ops {
namespace {

// FLOPs of tanh- and sigmoid-shaped functions are counted as 10 an element.
Cost activation_cost(const Tensor& x, double passes) {
  return elementwise_cost(x.numel(), 10, passes * static_cast<double>(size_of(x.dtype())));
}

}  // namespace

Tensor gelu(OpContext& cx, const Tensor& x) {
  Tensor y = cx.empty(x.shape(), x.dtype());
  cx.kernels().elementwise.gelu(cx.exec, x.view(), y.mut());
  if (!cx.recording()) return y;
  cx.tape->record({"gelu", {&x}, {&y}, {}, activation_cost(x, 2), activation_cost(x, 3)},
                  [x = x.detached()](BackwardPass& pass) {
                    Tensor dx = pass.empty_like(x);
                    pass.exec().kernels().elementwise.gelu_backward(pass.exec(), x.view(), pass.grad(0).view(), dx.mut());
                    pass.give(0, std::move(dx));
                  });
  return y;
}

Tensor swiglu(OpContext& cx, const Tensor& gate_up) {
  Shape shape = gate_up.shape();
  WEFT_CHECK(shape[-1] % 2 == 0, "{} has no two halves", to_string(shape));
  shape[-1] /= 2;
  Tensor y = cx.empty(shape, gate_up.dtype());
  cx.kernels().elementwise.swiglu(cx.exec, gate_up.view(), y.mut());
  if (!cx.recording()) return y;
  cx.tape->record({"swiglu", {&gate_up}, {&y}, {}, activation_cost(y, 3), activation_cost(y, 5)},
                  [gate_up = gate_up.detached()](BackwardPass& pass) {
                    Tensor dx = pass.empty_like(gate_up);
                    pass.exec().kernels().elementwise.swiglu_backward(pass.exec(), gate_up.view(), pass.grad(0).view(),
                                                                      dx.mut());
                    pass.give(0, std::move(dx));
                  });
  return y;
}

}  // namespace weft::ops
