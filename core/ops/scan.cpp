#include "core/ops/scan.hpp"

namespace weft::ops {
namespace {

View value_of(const Parameter* parameter) { return parameter ? parameter->value().view() : View{}; }

/// Columns [first, first + count) of a [B, T, columns] view.
template <class AnyView>
AnyView columns(AnyView view, std::int64_t first, std::int64_t count) {
  using Byte = std::conditional_t<std::is_same_v<AnyView, View>, const char, char>;
  view.data = static_cast<Byte*>(view.data) + static_cast<std::size_t>(first) * size_of(view.dtype);
  view.shape[2] = count;
  return view;
}

ScanOperands operands_of(const ScanOptions& options, const Tensor& u, const Tensor& skip, const Tensor& mask) {
  const int gates = traits_of(options.cell).gates;
  const std::int64_t d = u.shape()[2] / (gates + (options.skip_in_u ? 1 : 0));
  ScanOperands in;
  in.u = columns(u.view(), 0, gates * d);
  in.skip = options.skip_in_u ? columns(u.view(), gates * d, d) : skip.view();
  in.mask = mask.view();
  in.v_f = value_of(options.v_f);
  in.v_r = value_of(options.v_r);
  in.b_f = value_of(options.b_f);
  in.b_r = value_of(options.b_r);
  return in;
}

ScanSpec spec_of(const ScanOptions& options, ScanShape shape, const ExecContext& exec) {
  ScanSpec spec;
  spec.cell = options.cell;
  spec.tanh = options.tanh;
  spec.skip_scale = options.skip_in_u ? 1 : options.skip_scale;
  spec.reverse_from = options.reverse_from;
  spec.steps_before = options.steps_before;
  choose_scan_spans(spec, shape, exec.device(), exec.threads());
  return spec;
}

/// Product (0) or sum (1) of maps [2, B, D].
MutView map_part(const Tensor& maps, std::int64_t index) {
  return maps.mut().slice(index, index + 1).reshaped({maps.shape()[1], maps.shape()[2]});
}

}  // namespace

std::pair<Cost, Cost> scan_costs(const OpContext& cx, const ScanOptions& options, const Tensor& u, std::int64_t steps) {
  const std::int64_t columns = traits_of(options.cell).gates + (options.skip_in_u ? 1 : 0);
  const ScanShape shape{u.shape()[0], steps, u.shape()[2] / columns};
  const ScanSpec spec = spec_of(options, shape, cx.exec);
  return {scan_cost(spec, shape, u.dtype(), ScanPass::forward), scan_cost(spec, shape, u.dtype(), ScanPass::backward)};
}

Scanned scan(OpContext& cx, const ScanOptions& options, const Tensor& u, const Tensor& skip, const Tensor& mask,
             const Tensor& initial) {
  WEFT_CHECK(!options.skip_in_u || !skip.defined(), "x′ stands in u and beside it");
  const ScanOperands in = operands_of(options, u, skip, mask);
  const std::int64_t b = u.shape()[0], t = u.shape()[1], d = in.u.shape[2] / traits_of(options.cell).gates;
  const ScanShape shape{b, t, d};
  const ScanSpec spec = spec_of(options, shape, cx.exec);
  Scanned out{cx.empty({b, t, d}, u.dtype()), cx.empty({b, d}, DType::f32)};
  WEFT_CHECK(!options.neighbours || (traits_of(options.cell).affine && !initial.defined() && spec.reverse_from >= d),
             "this recurrence does not go in parts");
  Tensor states, before = initial;
  if (cx.recording()) states = cx.empty({b, scan_chunks(t), d}, DType::f32);
  {
    const ParameterUse v_f(options.v_f, Pass::forward), v_r(options.v_r, Pass::forward);
    const ParameterUse b_f(options.b_f, Pass::forward), b_r(options.b_r, Pass::forward);
    const ScanOperands all = operands_of(options, u, skip, mask);
    if (options.neighbours) {
      const Tensor maps = cx.empty({2, b, d}, DType::f32);
      cx.kernels().scan.summary(cx.exec, spec, all, map_part(maps, 0), map_part(maps, 1));
      before = options.neighbours->state_before(cx.exec, maps);
    }
    cx.kernels().scan.forward(cx.exec, spec, all, before.view(), out.h.mut(), states.mut(), out.final.mut());
  }
  if (!cx.recording()) return out;
  const auto costs = scan_costs(cx, options, u, t);
  cx.tape->record({"scan",
                   {&u, &skip, &initial},
                   {&out.h, &out.final},
                   {options.v_f, options.v_r, options.b_f, options.b_r},
                   costs.first,
                   costs.second},
                  [options, spec, states, mask, u = u.detached(), skip = skip.defined() ? skip.detached() : skip,
                   h = out.h.detached(), has_initial = initial.defined()](BackwardPass& pass) {
                    ExecContext& exec = pass.exec();
                    Tensor dh = pass.grad(0);
                    if (!dh.defined()) {  // only the last state was used
                      dh = pass.empty_like(h);
                      exec.kernels().elementwise.fill(exec, 0.0f, dh.mut());
                    }
                    const ParameterUse v_f(options.v_f, Pass::backward), v_r(options.v_r, Pass::backward);
                    const ParameterUse b_f(options.b_f, Pass::backward), b_r(options.b_r, Pass::backward);
                    Tensor du = pass.empty_like(u), dskip, dinitial;
                    ScanGradients to;
                    const std::int64_t width = h.shape()[2], gates = traits_of(spec.cell).gates * width;
                    to.du = columns(du.mut(), 0, gates);
                    if (options.skip_in_u) {
                      to.dskip = columns(du.mut(), gates, width);
                    } else if (skip.defined()) {
                      dskip = pass.empty_like(skip);
                      to.dskip = dskip.mut();
                    }
                    if (has_initial && pass.needs(2)) {
                      dinitial = Tensor::empty(exec.memory(), {h.shape()[0], width}, DType::f32, MemoryUse::activation);
                      to.initial = dinitial.mut();
                    }
                    bool first = true;
                    for (const auto& [parameter, gradient] : {std::pair{options.v_f, &to.dv_f},
                                                              {options.v_r, &to.dv_r},
                                                              {options.b_f, &to.db_f},
                                                              {options.b_r, &to.db_r}}) {
                      if (!parameter) continue;
                      const Write write = parameter->next_grad_write();
                      WEFT_CHECK(first || write == to.write, "{} is used apart", parameter->name());
                      to.write = write;
                      first = false;
                      *gradient = parameter->grad().mut();
                    }
                    const ScanOperands all = operands_of(options, u, skip, mask);
                    Tensor dfinal = pass.grad(1);
                    if (options.neighbours) {
                      const Shape of_maps{2, h.shape()[0], width};
                      const Tensor maps = Tensor::empty(exec.memory(), of_maps, DType::f32, MemoryUse::activation);
                      exec.kernels().scan.backward_summary(exec, spec, all, states.view(), dh.view(), map_part(maps, 0),
                                                           map_part(maps, 1));
                      dfinal = options.neighbours->state_gradient_after(exec, maps);
                    }
                    exec.kernels().scan.backward(exec, spec, all, states.view(), dh.view(), dfinal.view(), to);
                    pass.give(0, std::move(du));
                    if (dskip.defined()) pass.give(1, std::move(dskip));
                    if (dinitial.defined()) pass.give(2, std::move(dinitial));
                  });
  return out;
}

Tensor sequence_dropout(OpContext& cx, std::int64_t batch, std::int64_t cols, Range held, float p, int site) {
  DropoutSpec spec = cx.dropout(p, site, cols);
  if (spec.p == 0) return {};
  spec.rows = {.first_sequence = cx.tokens.first_sequence};  // a row is a sequence of one token
  spec.col_begin = held.begin;
  Tensor mask = cx.empty({batch, held.size()}, DType::f32);
  cx.kernels().elementwise.fill(cx.exec, 1.0f, mask.mut());
  cx.kernels().dropout.apply(cx.exec, mask.view(), spec, mask.mut());
  return mask;
}

namespace {

/// Tokens [begin, end) and columns [first, first + count) of a [B, T, columns] view.
template <class AnyView>
AnyView part(AnyView view, std::int64_t begin, std::int64_t end, std::int64_t first, std::int64_t count) {
  view = columns(view, first, count);
  using Byte = std::conditional_t<std::is_same_v<AnyView, View>, const char, char>;
  view.data = static_cast<Byte*>(view.data) + begin * view.strides[1] * static_cast<std::int64_t>(size_of(view.dtype));
  view.shape[1] = end - begin;
  return view;
}

/// The gradient of x through windows of dy: dx_t = Σ_j dy_{t+j}'s part j.
Tensor unwindow(ExecContext& exec, const Tensor& dy, std::int64_t size) {
  const std::int64_t b = dy.shape()[0], t = dy.shape()[1], d = dy.shape()[2] / size;
  const auto& kernels = exec.kernels().elementwise;
  const auto make = [&] { return Tensor::empty(exec.memory(), {b, t, d}, dy.dtype(), MemoryUse::activation); };
  Tensor dx = make();
  kernels.copy(exec, part(dy.view(), 0, t, 0, d), dx.mut());
  if (size == 1) return dx;
  const Tensor later = make();
  for (std::int64_t j = 1; j < std::min(size, t); ++j) {
    kernels.fill(exec, 0.0f, later.mut());
    kernels.copy(exec, part(dy.view(), j, t, j * d, d), part(later.mut(), 0, t - j, 0, d));
    kernels.add(exec, dx.view(), later.view(), dx.mut());
  }
  return dx;
}

/// The gradient of the inputs before the first, the newest first: dbefore_a = Σ_{j > a} dy_{j−1−a}'s part j.
Tensor unwindow_before(ExecContext& exec, const Tensor& dy, std::int64_t size) {
  const std::int64_t b = dy.shape()[0], t = dy.shape()[1], d = dy.shape()[2] / size;
  const auto& kernels = exec.kernels().elementwise;
  const auto make = [&] { return Tensor::empty(exec.memory(), {b, size - 1, d}, dy.dtype(), MemoryUse::activation); };
  Tensor dbefore = make();
  kernels.fill(exec, 0.0f, dbefore.mut());
  const Tensor one = make();
  for (std::int64_t j = 1; j < size; ++j) {
    kernels.fill(exec, 0.0f, one.mut());
    for (std::int64_t a = 0; a < j; ++a)
      if (j - 1 - a < t)
        kernels.copy(exec, part(dy.view(), j - 1 - a, j - a, j * d, d), part(one.mut(), a, a + 1, 0, d));
    kernels.add(exec, dbefore.view(), one.view(), dbefore.mut());
  }
  return dbefore;
}

/// dx += dlast, the gradient of the last inputs, the newest first.
void add_to_last(ExecContext& exec, const Tensor& dlast, Tensor& dx) {
  const std::int64_t t = dx.shape()[1], d = dx.shape()[2];
  const Tensor later = Tensor::empty(exec.memory(), dx.shape(), dx.dtype(), MemoryUse::activation);
  const auto& kernels = exec.kernels().elementwise;
  kernels.fill(exec, 0.0f, later.mut());
  for (std::int64_t a = 0; a < dlast.shape()[1]; ++a)
    kernels.copy(exec, part(dlast.view(), a, a + 1, 0, d), part(later.mut(), t - 1 - a, t - a, 0, d));
  kernels.add(exec, dx.view(), later.view(), dx.mut());
}

}  // namespace

Windowed window(OpContext& cx, const Tensor& x, std::int64_t size, const Tensor& history,
                std::shared_ptr<const SequenceNeighbours> neighbours) {
  const std::int64_t b = x.shape()[0], t = x.shape()[1], d = x.shape()[2];
  if (size == 1) return {x, {}};
  const auto& kernels = cx.kernels().elementwise;
  Tensor before = history;
  if (neighbours) {
    WEFT_CHECK(!history.defined() && size - 1 <= t, "a window of {} over {} tokens in parts", size, t);
    const Tensor last = cx.empty({b, size - 1, d}, x.dtype());
    for (std::int64_t j = 0; j + 1 < size; ++j)
      kernels.copy(cx.exec, part(x.view(), t - 1 - j, t - j, 0, d), part(last.mut(), j, j + 1, 0, d));
    before = neighbours->inputs_before(cx.exec, last);
  }
  if (!before.defined()) {
    before = cx.empty({b, size - 1, d}, x.dtype());
    kernels.fill(cx.exec, 0.0f, before.mut());
  }
  Windowed out{cx.empty({b, t, size * d}, x.dtype()), cx.empty({b, size - 1, d}, x.dtype())};
  for (std::int64_t j = 0; j < size; ++j) {
    if (j < t) kernels.copy(cx.exec, part(x.view(), 0, t - j, 0, d), part(out.y.mut(), j, t, j * d, d));
    for (std::int64_t at = 0; at < std::min(j, t); ++at)
      kernels.copy(cx.exec, part(before.view(), j - 1 - at, j - at, 0, d), part(out.y.mut(), at, at + 1, j * d, d));
  }
  for (std::int64_t j = 0; j + 1 < size; ++j)
    kernels.copy(cx.exec, j < t ? part(x.view(), t - 1 - j, t - j, 0, d) : part(before.view(), j - t, j - t + 1, 0, d),
                 part(out.history.mut(), j, j + 1, 0, d));
  if (!cx.recording()) return out;
  const auto passes = static_cast<double>(2 * size);
  const Cost cost = elementwise_cost(x.numel(), 0, passes * static_cast<double>(size_of(x.dtype())));
  cx.tape->record({"window", {&x}, {&out.y}, {}, cost, cost}, [size, neighbours](BackwardPass& pass) {
    Tensor dx = unwindow(pass.exec(), pass.grad(0), size);
    if (neighbours)
      add_to_last(pass.exec(),
                  neighbours->inputs_gradient(pass.exec(), unwindow_before(pass.exec(), pass.grad(0), size)), dx);
    pass.give(0, std::move(dx));
  });
  return out;
}

}  // namespace weft::ops
