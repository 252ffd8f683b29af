#include "core/ops/norm.hpp"

namespace weft::ops {

Normed add_norm(OpContext& cx, const Tensor& x, const Tensor& branch, const NormParameters& norm,
                ResidualDropout dropout) {
  const std::int64_t cols = x.shape()[-1], m = x.view().rows();
  WEFT_CHECK(norm.gain->shape().numel() == cols, "width {} into {}", cols, norm.gain->name());
  const DropoutSpec spec = branch.defined() ? cx.dropout(dropout.p, dropout.site, cols) : DropoutSpec{};
  Normed out{branch.defined() ? cx.empty(x.shape(), x.dtype()) : x, cx.empty(x.shape(), x.dtype())};
  Tensor mean, rstd;
  if (cx.recording()) {
    if (norm.kind == NormKind::layer) mean = cx.empty({m}, DType::f32);
    rstd = cx.empty({m}, DType::f32);
  }
  {
    const ParameterUse use_gain(norm.gain, Pass::forward), use_bias(norm.bias, Pass::forward);
    cx.kernels().norm.forward(cx.exec, norm.kind, x.view(), branch.view(), spec, norm.gain->value().view(),
                              norm.bias ? norm.bias->value().view() : View{}, norm.eps,
                              branch.defined() ? out.sum.mut() : MutView{}, out.y.mut(), mean.mut(), rstd.mut());
  }
  if (!cx.recording()) return out;

  const Cost cost = norm_cost(m, cols, x.dtype());
  const bool fused = branch.defined();
  const Tensor sum = out.sum.detached();
  cx.tape->record({"norm", {&x, &branch}, {fused ? &out.sum : nullptr, &out.y}, {norm.gain, norm.bias}, cost, cost},
                  [=](BackwardPass& pass) {
                    ExecContext& exec = pass.exec();
                    const Tensor& dsum = pass.grad(0);
                    const Tensor& dy = pass.grad(1);
                    if (!dy.defined()) {
                      // Only the sum was used: its gradient passes through, and the norm's parameters get nothing.
                      if (pass.needs(0)) pass.give(0, dsum);
                      if (fused && pass.needs(1)) {
                        Tensor dbranch = dsum;
                        if (spec.p > 0) {
                          dbranch = pass.empty_like(dsum);
                          exec.kernels().dropout.apply(exec, dsum.view(), spec, dbranch.mut());
                        }
                        pass.give(1, dbranch);
                      }
                      return;
                    }
                    const ParameterUse use(norm.gain, Pass::backward);
                    Tensor dx = pass.empty_like(sum), dbranch;
                    if (fused && spec.p > 0) dbranch = pass.empty_like(sum);
                    const Write write = norm.gain->next_grad_write();
                    if (norm.bias)
                      WEFT_CHECK(norm.bias->next_grad_write() == write, "{} is used apart", norm.bias->name());
                    exec.kernels().norm.backward(exec, norm.kind, dy.view(), sum.view(), norm.gain->value().view(),
                                                 mean.view(), rstd.view(), dsum.view(), spec, write, dx.mut(),
                                                 dbranch.mut(), norm.gain->grad().mut(),
                                                 norm.bias ? norm.bias->grad().mut() : MutView{});
                    if (fused) pass.give(1, dbranch.defined() ? dbranch : dx);
                    pass.give(0, std::move(dx));
                  });
  return out;
}

Tensor dropout(OpContext& cx, const Tensor& x, float p, int site) {
  const DropoutSpec spec = cx.dropout(p, site, x.shape()[-1]);
  if (spec.p == 0) return x;
  Tensor y = cx.empty(x.shape(), x.dtype());
  cx.kernels().dropout.apply(cx.exec, x.view(), spec, y.mut());
  if (!cx.recording()) return y;
  const Cost cost = elementwise_cost(x.numel(), 2, 2.0 * static_cast<double>(size_of(x.dtype())));
  cx.tape->record({"dropout", {&x}, {&y}, {}, cost, cost}, [spec](BackwardPass& pass) {
    Tensor dx = pass.empty_like(pass.grad(0));
    pass.exec().kernels().dropout.apply(pass.exec(), pass.grad(0).view(), spec, dx.mut());
    pass.give(0, std::move(dx));
  });
  return y;
}

Tensor scaled_add(OpContext& cx, const Tensor& x, const Tensor& a, Parameter& alpha) {
  WEFT_CHECK(x.shape() == a.shape() && x.dtype() == a.dtype(), "{} + {}", to_string(x.shape()), to_string(a.shape()));
  Tensor y = cx.empty(x.shape(), x.dtype());
  {
    const ParameterUse use(&alpha, Pass::forward);
    cx.kernels().elementwise.scaled_add(cx.exec, x.view(), a.view(), alpha.value().view(), y.mut());
  }
  if (!cx.recording()) return y;
  const Cost cost = elementwise_cost(x.numel(), 2, 3.0 * static_cast<double>(size_of(x.dtype())));
  cx.tape->record({"scaled_add", {&x, &a}, {&y}, {&alpha}, cost, cost}, [a = a.detached(), &alpha](BackwardPass& pass) {
    const ParameterUse use(&alpha, Pass::backward);
    const Tensor& dy = pass.grad(0);
    Tensor da = pass.empty_like(a);
    const Write write = alpha.next_grad_write();
    pass.exec().kernels().elementwise.scaled_add_backward(pass.exec(), a.view(), alpha.value().view(), dy.view(), write,
                                                          da.mut(), alpha.grad().mut());
    pass.give(0, dy);
    pass.give(1, std::move(da));
  });
  return y;
}

Tensor add(OpContext& cx, const Tensor& a, const Tensor& b) {
  WEFT_CHECK(a.shape() == b.shape() && a.dtype() == b.dtype(), "{} + {}", to_string(a.shape()), to_string(b.shape()));
  Tensor y = cx.empty(a.shape(), a.dtype());
  cx.kernels().elementwise.add(cx.exec, a.view(), b.view(), y.mut());
  if (!cx.recording()) return y;
  const Cost cost = elementwise_cost(a.numel(), 1, 3.0 * static_cast<double>(size_of(a.dtype())));
  cx.tape->record({"add", {&a, &b}, {&y}, {}, cost, {}}, [](BackwardPass& pass) {
    pass.give(0, pass.grad(0));
    pass.give(1, pass.grad(0));
  });
  return y;
}

}  // namespace weft::ops
