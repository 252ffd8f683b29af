#include "core/ops/recurrent.hpp"

namespace weft::ops {
namespace {

MutView steps_of(const Tensor& units, std::int64_t from, std::int64_t to) {
  MutView view = units.mut();
  view.data = static_cast<char*>(view.data) + from * view.strides[1] * static_cast<std::int64_t>(size_of(view.dtype));
  view.shape[1] = to - from;
  return view;
}

/// Step t of [B, T, units] as [B, units].
MutView step_of(const Tensor& units, std::int64_t t) {
  MutView view = steps_of(units, t, t + 1);
  view.strides = {view.strides[0], view.strides[2]};
  view.shape = {view.shape[0], view.shape[2]};
  return view;
}

/// The state that each step multiplied by R: h of the step before, [B, T, H].
Tensor states_before(BackwardPass& pass, const Tensor& y, const Tensor& h_first) {
  const ElementwiseKernels& kernels = pass.exec().kernels().elementwise;
  const std::int64_t b = y.shape()[0], t = y.shape()[1], h = y.shape()[2];
  Tensor before = pass.empty_like(y);
  if (h_first.defined())
    kernels.copy(pass.exec(), h_first.view().reshaped({b, 1, h}), steps_of(before, 0, 1));
  else
    kernels.fill(pass.exec(), 0.0f, before.mut());
  if (t > 1) kernels.copy(pass.exec(), steps_of(y, 0, t - 1), steps_of(before, 1, t));
  return before;
}

/// dR (= or +=) Σ over all steps of dgatesᵀ·h⁻, and the bias that is added to h⁻Rᵀ.
void weight_gradients(BackwardPass& pass, const Tensor& dgates, const Tensor& before, Parameter& weight,
                      Parameter* hidden_bias) {
  ExecContext& exec = pass.exec();
  const std::int64_t rows = before.view().rows(), h = before.shape()[2], width = dgates.shape()[2];
  const std::int64_t units = hidden_bias ? hidden_bias->shape()[0] : 0;
  const Write write = weight.next_grad_write();
  Tensor sums;
  if (hidden_bias) {
    WEFT_CHECK(hidden_bias->next_grad_write() == write, "{} and {} are used apart", weight.name(), hidden_bias->name());
    sums = Tensor::empty(exec.memory(), {width}, DType::f32, MemoryUse::activation);
    exec.kernels().elementwise.fill(exec, 0.0f, sums.mut());
  }
  exec.kernels().linear.backward_weight(exec, dgates.view().reshaped({rows, width}), before.view().reshaped({rows, h}),
                                        write, weight.grad().mut(), sums.mut());
  if (!hidden_bias) return;
  const View of_candidate = sums.view().slice(width - units, width);
  const MutView to = hidden_bias->grad().mut();
  if (write == Write::add)
    exec.kernels().elementwise.add(exec, to, of_candidate, to);
  else
    exec.kernels().elementwise.copy(exec, of_candidate, to);
}

/// Step by step, each from all units' states, which come to stand in `before` [B, T, H].
void forward_steps(ExecContext& exec, const RecurrentForward& job, const Tensor& y, const Tensor& before,
                   const UnitExchange& others) {
  const KernelTable& kernels = exec.kernels();
  const std::int64_t steps = y.shape()[1];
  if (job.h_first)
    others.gather(exec, job.h_first, step_of(before, 0));
  else
    kernels.elementwise.fill(exec, 0.0f, before.mut());
  for (std::int64_t t = 0; t < steps; ++t) {
    kernels.recurrent.forward_step(exec, job, t, before.view());
    if (t + 1 < steps) others.gather(exec, step_of(y, t), step_of(before, t + 1));
  }
}

/// The same backward: every step's part of the gradient of all units' states is summed before the step before.
void backward_steps(ExecContext& exec, const RecurrentBackward& job, std::int64_t hidden, const UnitExchange& others) {
  const KernelTable& kernels = exec.kernels();
  const std::int64_t b = job.dy.shape[0], steps = job.dy.shape[1], units = job.dy.shape[2];
  const auto make = [&](std::int64_t count) {
    return Tensor::empty(exec.memory(), {b, count}, DType::f32, MemoryUse::activation);
  };
  const Tensor carry = job.cell == RecurrentCell::elman ? Tensor{} : make(units);
  const Tensor dh = make(units), partial = make(hidden);
  for (std::int64_t t = steps - 1; t >= 0; --t) {
    const bool wanted = t > 0 || job.dh_first;
    kernels.recurrent.backward_step(exec, job, t, t + 1 == steps ? job.dh_last : dh.view(), carry.mut(),
                                    wanted ? partial.mut() : MutView{});
    if (wanted) others.sum(exec, partial.view(), dh.mut());
  }
  if (job.dc_first) kernels.elementwise.copy(exec, carry.view(), job.dc_first);
  if (!job.dh_first) return;
  if (job.cell == RecurrentCell::gru)
    kernels.elementwise.add(exec, dh.view(), carry.view(), job.dh_first);
  else
    kernels.elementwise.copy(exec, dh.view(), job.dh_first);
}

}  // namespace

RecurrentOutput recurrent(OpContext& cx, RecurrentCell cell, Tensor projected, Parameter& weight,
                          Parameter* hidden_bias, const RecurrentState& first,
                          const std::shared_ptr<const UnitExchange>& others) {
  const std::int64_t all = weight.shape()[1], width = weight.shape()[0], h = width / gates_of(cell);
  const Tensor x = projected;
  projected = {};
  WEFT_CHECK(x.shape().rank() == 3 && x.shape()[2] == width && h * gates_of(cell) == width && (others || h == all),
             "{} into the recurrence of {} {}", to_string(x.shape()), weight.name(), to_string(weight.shape()));
  const std::int64_t b = x.shape()[0], t = x.shape()[1];
  const bool lstm = cell == RecurrentCell::lstm, gru = cell == RecurrentCell::gru;
  const auto state = [&](const Tensor& given) {
    return !cx.recording() && given.defined() ? given.detached() : cx.empty({b, h}, DType::f32);
  };
  RecurrentOutput out{cx.empty({b, t, h}, x.dtype()), {state(first.h), lstm ? state(first.c) : Tensor{}}};
  Tensor gates, candidate, cells, before;
  if (others) before = cx.empty({b, t, all}, x.dtype());
  if (cx.recording()) {
    // x alone is left of the caller's handle: in place is safe only when that handle was moved in.
    gates = x.unique() ? x.detached() : cx.empty(x.shape(), x.dtype());
    if (gru) candidate = cx.empty(out.y.shape(), x.dtype());
    if (lstm) cells = cx.empty(out.y.shape(), DType::f32);
  }
  {
    const ParameterUse use_weight(&weight, Pass::forward), use_bias(hidden_bias, Pass::forward);
    const RecurrentForward job{
        cell,           x.view(),       weight.weight(),  hidden_bias ? hidden_bias->value().view() : View{},
        first.h.view(), first.c.view(), gates.mut(),      candidate.mut(),
        cells.mut(),    out.y.mut(),    out.last.h.mut(), out.last.c.mut()};
    if (others)
      forward_steps(cx.exec, job, out.y, before, *others);
    else
      cx.kernels().recurrent.forward(cx.exec, job);
  }
  if (!cx.recording()) return out;

  const Cost forward = recurrent_cost(cell, b, t, h, all, x.dtype());
  Cost backward = recurrent_backward_cost(cell, b, t, h, all, x.dtype());
  const Cost product = linear_cost(b * t, width, all, x.dtype());
  backward.flops += product.flops;
  backward.bytes += product.bytes;
  backward.depth += product.depth;
  backward.min_depth += product.min_depth;
  const RecurrentState begin{first.h.detached(), first.c.detached()};
  cx.tape->record({"recurrent",
                   {&x, &first.h, &first.c},
                   {&out.y, &out.last.h, lstm ? &out.last.c : nullptr},
                   {&weight, hidden_bias},
                   forward,
                   backward},
                  [=, &weight, y = out.y.detached()](BackwardPass& pass) {
                    ExecContext& exec = pass.exec();
                    Tensor dy = pass.grad(0);
                    if (!dy.defined()) {
                      dy = pass.empty_like(y);
                      exec.kernels().elementwise.fill(exec, 0.0f, dy.mut());
                    }
                    const Tensor& of_hidden_last = pass.grad(1);
                    const Tensor& of_cell_last = pass.grad(2);
                    const Tensor dhidden = gru ? pass.empty_like(gates) : Tensor{};
                    const auto gradient = [&](int input, const Tensor& of) {
                      return of.defined() && pass.needs(input) ? pass.empty_like(of) : Tensor{};
                    };
                    const Tensor dh_first = gradient(1, begin.h), dc_first = gradient(2, begin.c);
                    {
                      const ParameterUse use(&weight, Pass::backward);
                      const RecurrentBackward job{
                          cell,          gates.view(),          candidate.view(),    cells.view(),
                          y.view(),      weight.weight(),       begin.h.view(),      begin.c.view(),
                          dy.view(),     of_hidden_last.view(), of_cell_last.view(), gates.mut(),
                          dhidden.mut(), dh_first.mut(),        dc_first.mut()};
                      if (others)
                        backward_steps(exec, job, all, *others);
                      else
                        exec.kernels().recurrent.backward(exec, job);
                    }
                    weight_gradients(pass, gru ? dhidden : gates, others ? before : states_before(pass, y, begin.h),
                                     weight, hidden_bias);
                    if (dh_first.defined()) pass.give(1, dh_first);
                    if (dc_first.defined()) pass.give(2, dc_first);
                    pass.give(0, gates);
                  });
  return out;
}

}  // namespace weft::ops
