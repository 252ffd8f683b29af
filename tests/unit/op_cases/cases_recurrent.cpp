#include <cmath>
#include <string>
#include <vector>

#include "tests/unit/op_cases/run.hpp"

namespace weft::test {
namespace {

struct Sizes {
  std::int64_t batch, steps, hidden;
};

struct Options {
  bool first = true;      // an initial state
  bool last = true;       // gradients come from the final state too
  bool bias = true;       // gru
  bool in_place = false;  // gates take the projection's memory, their gradients the gates'
  bool cached = true;
  bool trains = true;           // else nothing is kept for backward
  bool state_in_place = false;  // the final state takes the initial one's memory
  bool in_parts = false;        // step by step, of some of the units at a time
};

struct Spec : Sizes, Options {
  RecurrentCell cell;
  std::string name;
  Spec(RecurrentCell cell_, std::string name_, Sizes sizes, Options options)
      : Sizes(sizes), Options(options), cell(cell_), name(std::move(name_)) {}
  bool lstm() const { return cell == RecurrentCell::lstm; }
  bool gru() const { return cell == RecurrentCell::gru; }
  std::int64_t gates() const { return gates_of(cell); }
  Shape units_shape() const { return {batch, steps, hidden}; }
  Shape gates_shape() const { return {batch, steps, gates() * hidden}; }
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

void oracle(const Spec& s, const Values& in, Values& out) {
  const auto h_size = static_cast<std::size_t>(s.hidden), g_size = static_cast<std::size_t>(s.gates()) * h_size;
  const auto steps = static_cast<std::size_t>(s.steps);
  const std::vector<double>&w = in.at("w"), &p = in.at("p");
  std::vector<double> sums(g_size), h(h_size), c(h_size);
  for (std::size_t b = 0; b < static_cast<std::size_t>(s.batch); ++b) {
    for (std::size_t i = 0; i < h_size; ++i) {
      h[i] = s.first ? in.at("h_first")[b * h_size + i] : 0;
      c[i] = s.first && s.lstm() ? in.at("c_first")[b * h_size + i] : 0;
    }
    for (std::size_t t = 0; t < steps; ++t) {
      for (std::size_t k = 0; k < g_size; ++k) {
        sums[k] = 0;
        for (std::size_t i = 0; i < h_size; ++i) sums[k] += w[k * h_size + i] * h[i];
      }
      const double* x = &p[(b * steps + t) * g_size];
      for (std::size_t i = 0; i < h_size; ++i) {
        const auto pre = [&](std::size_t gate) { return x[gate * h_size + i] + sums[gate * h_size + i]; };
        switch (s.cell) {
          case RecurrentCell::elman: h[i] = std::tanh(pre(0)); break;
          case RecurrentCell::lstm:
            c[i] = sigmoid(pre(1)) * c[i] + sigmoid(pre(0)) * std::tanh(pre(2));
            h[i] = sigmoid(pre(3)) * std::tanh(c[i]);
            break;
          case RecurrentCell::gru: {
            const double q = sums[2 * h_size + i] + (s.bias ? in.at("bias")[i] : 0), u = sigmoid(pre(1));
            h[i] = (1 - u) * std::tanh(x[2 * h_size + i] + sigmoid(pre(0)) * q) + u * h[i];
            break;
          }
        }
        out["y"][(b * steps + t) * h_size + i] = h[i];
      }
    }
    for (std::size_t i = 0; i < h_size; ++i) {
      out["h_last"][b * h_size + i] = h[i];
      if (s.lstm()) out["c_last"][b * h_size + i] = c[i];
    }
  }
}

WeightRef weight_of(Run& run, const Spec& s) {
  WeightRef w = run.weight("w");
  if (!s.cached) w.pack = nullptr;
  return w;
}

void forward(Run& run, const Spec& s) {
  RecurrentForward job;
  job.cell = s.cell;
  job.projected = run.in("p");
  job.weight = weight_of(run, s);
  if (s.gru() && s.bias) job.hidden_bias = run.in("bias");
  if (s.first) job.h_first = run.in("h_first");
  if (s.first && s.lstm()) job.c_first = run.in("c_first");
  if (s.trains) job.gates = run.saved("gates", s.gates_shape(), run.activation());
  if (s.trains && s.gru()) job.candidate = run.saved("candidate", s.units_shape(), run.activation());
  if (s.trains && s.lstm()) job.cells = run.saved("cells", s.units_shape(), DType::f32);
  if (s.in_place) {
    run.kernels().elementwise.copy(run.exec(), run.in("p"), job.gates);
    job.projected = job.gates;
  }
  job.y = run.out("y");
  job.h_last = run.out("h_last");
  if (s.lstm()) job.c_last = run.out("c_last");
  run.kernels().recurrent.forward(run.exec(), job);
}

void backward(Run& run, const Spec& s) {
  const ElementwiseKernels& elementwise = run.kernels().elementwise;
  RecurrentBackward job;
  job.cell = s.cell;
  job.gates = run.saved("gates", s.gates_shape(), run.activation());
  if (s.gru()) job.candidate = run.saved("candidate", s.units_shape(), run.activation());
  if (s.lstm()) job.cells = run.saved("cells", s.units_shape(), DType::f32);
  job.y = run.out("y");
  job.weight = weight_of(run, s);
  if (s.first) {
    job.h_first = run.in("h_first");
    job.dh_first = run.gradient("h_first");
    if (s.lstm()) job.c_first = run.in("c_first");
    if (s.lstm()) job.dc_first = run.gradient("c_first");
  }
  job.dy = run.cotangent("y");
  if (s.last) job.dh_last = run.cotangent("h_last");
  if (s.last && s.lstm()) job.dc_last = run.cotangent("c_last");
  job.dgates = s.in_place ? run.saved("gates", s.gates_shape(), run.activation()) : run.gradient("p");
  if (s.gru()) job.dhidden = run.saved("dhidden", s.gates_shape(), run.activation());
  run.kernels().recurrent.backward(run.exec(), job);
  if (s.in_place) elementwise.copy(run.exec(), job.dgates, run.gradient("p"));

  // The states that the steps began with: y one step later.
  const MutView before = run.saved("before", s.units_shape(), run.activation());
  const auto steps = [&s](auto view, std::int64_t from, std::int64_t to) {
    using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(view.data)>>, const char, char>;
    view.data = static_cast<Byte*>(view.data) + from * s.hidden * static_cast<std::int64_t>(size_of(view.dtype));
    view.shape[1] = to - from;
    return view;
  };
  elementwise.fill(run.exec(), 0.0f, before);
  elementwise.copy(run.exec(), steps(View(run.out("y")), 0, s.steps - 1), steps(before, 1, s.steps));
  if (s.first) elementwise.copy(run.exec(), run.in("h_first").reshaped({s.batch, 1, s.hidden}), steps(before, 0, 1));
  const Shape gate_rows{s.batch * s.steps, s.gates() * s.hidden};
  const View dgates = View(s.gru() ? job.dhidden : job.dgates).reshaped(gate_rows);
  const View rows = View(before).reshaped({s.batch * s.steps, s.hidden});
  run.kernels().linear.backward_weight(run.exec(), dgates, rows, Write::overwrite, run.gradient("w"),
                                       s.gru() && s.bias ? run.saved("dbias", {3 * s.hidden}, DType::f32) : MutView{});
  if (s.gru() && s.bias)
    elementwise.copy(run.exec(), run.saved("dbias", {3 * s.hidden}, DType::f32).slice(2 * s.hidden, 3 * s.hidden),
                     run.gradient("bias"));
}

/// Columns [first, first + count) of a view.
template <class AnyView>
AnyView columns(AnyView view, std::int64_t first, std::int64_t count) {
  using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(view.data)>>, const char, char>;
  view.data = static_cast<Byte*>(view.data) + first * static_cast<std::int64_t>(size_of(view.dtype));
  view.shape[-1] = count;
  return view;
}

/// Step t of [B, T, columns] as [B, columns].
template <class AnyView>
AnyView step_of(AnyView view, std::int64_t t) {
  using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(view.data)>>, const char, char>;
  view.data = static_cast<Byte*>(view.data) + t * view.strides[1] * static_cast<std::int64_t>(size_of(view.dtype));
  view.strides = {view.strides[0], view.strides[2]};
  view.shape = {view.shape[0], view.shape[2]};
  return view;
}

/// Some of the units with what belongs to them, as one of several ranks has it.
class Part {
 public:
  Part(Run& run, const Spec& s, std::int64_t index)
      : run_(run), s_(s), index_(index), first_(s.hidden * index / parts),
        units_(s.hidden * (index + 1) / parts - first_) {}
  static constexpr std::int64_t parts = 3;

  std::int64_t units() const { return units_; }
  MutView saved(const char* name, std::int64_t columns_here, DType dtype) {
    return run_.saved(key(name), {s_.batch, s_.steps, columns_here}, dtype);
  }
  MutView state(const char* name) { return run_.saved(key(name), {s_.batch, units_}, DType::f32); }
  /// These units of rows of all; of rows with gates, those of each gate.
  template <class AnyView>
  AnyView of(AnyView all) const {
    return columns(all, first_, units_);
  }
  void take_gates(const View& all, const MutView& own) {
    for (std::int64_t gate = 0; gate < s_.gates(); ++gate)
      copy(columns(all, gate * s_.hidden + first_, units_), columns(own, gate * units_, units_));
  }
  void give_gates(const View& own, const MutView& all) {
    for (std::int64_t gate = 0; gate < s_.gates(); ++gate)
      copy(columns(own, gate * units_, units_), columns(all, gate * s_.hidden + first_, units_));
  }
  /// Rows of R, or of its gradient, and these units' among them.
  template <class Each>
  void for_rows(const MutView& own, Each&& each) {
    for (std::int64_t gate = 0; gate < s_.gates(); ++gate)
      each(gate * s_.hidden + first_, own.slice(gate * units_, (gate + 1) * units_));
  }
  MutView rows(const char* name) { return run_.saved(key(name), {s_.gates() * units_, s_.hidden}, DType::f32); }
  void copy(const View& from, const MutView& to) { run_.kernels().elementwise.copy(run_.exec(), from, to); }

  RecurrentForward forward() {
    const DType dtype = run_.activation();
    RecurrentForward job;
    job.cell = s_.cell;
    job.projected = saved("p", s_.gates() * units_, dtype);
    job.weight = {rows("w")};
    if (s_.gru() && s_.bias) job.hidden_bias = run_.in("bias").slice(first_, first_ + units_);
    if (s_.first) job.h_first = state("h_first");
    if (s_.first && s_.lstm()) job.c_first = state("c_first");
    job.gates = saved("gates", s_.gates() * units_, dtype);
    if (s_.gru()) job.candidate = saved("candidate", units_, dtype);
    if (s_.lstm()) job.cells = saved("cells", units_, DType::f32);
    job.y = saved("y", units_, dtype);
    job.h_last = state("h_last");
    if (s_.lstm()) job.c_last = state("c_last");
    return job;
  }
  void begin() {
    take_gates(run_.in("p"), saved("p", s_.gates() * units_, run_.activation()));
    for_rows(rows("w"), [&](std::int64_t at, const MutView& own) { copy(run_.in("w").slice(at, at + units_), own); });
    if (s_.first) copy(of(run_.in("h_first")), state("h_first"));
    if (s_.first && s_.lstm()) copy(of(run_.in("c_first")), state("c_first"));
  }

  RecurrentBackward backward() {
    const DType dtype = run_.activation();
    const RecurrentForward done = forward();
    RecurrentBackward job;
    job.cell = s_.cell;
    job.gates = done.gates;
    job.candidate = done.candidate;
    job.cells = done.cells;
    job.y = done.y;
    job.weight = done.weight;
    job.h_first = done.h_first;
    job.c_first = done.c_first;
    job.dy = saved("dy", units_, dtype);
    if (s_.last && s_.lstm()) job.dc_last = state("dc_last");
    job.dgates = s_.in_place ? done.gates : saved("dp", s_.gates() * units_, dtype);
    if (s_.gru()) job.dhidden = saved("dhidden", s_.gates() * units_, dtype);
    return job;
  }
  void begin_backward() {
    copy(of(run_.cotangent("y")), saved("dy", units_, run_.activation()));
    if (s_.last && s_.lstm()) copy(of(run_.cotangent("c_last")), state("dc_last"));
    if (s_.last) copy(of(run_.cotangent("h_last")), state("dh"));
  }
  void weight_gradient(const View& before) {
    const RecurrentBackward job = backward();
    const Shape gate_rows{s_.batch * s_.steps, s_.gates() * units_};
    const MutView dw = rows("dw"), db = run_.saved(key("db"), {s_.gates() * units_}, DType::f32);
    run_.kernels().linear.backward_weight(run_.exec(), View(s_.gru() ? job.dhidden : job.dgates).reshaped(gate_rows),
                                          before.reshaped({s_.batch * s_.steps, s_.hidden}), Write::overwrite, dw, db);
    for_rows(dw, [&](std::int64_t at, const MutView& own) { copy(own, run_.gradient("w").slice(at, at + units_)); });
    if (s_.gru() && s_.bias)
      copy(View(db).slice(2 * units_, 3 * units_), run_.gradient("bias").slice(first_, first_ + units_));
  }

 private:
  std::string key(const char* name) const { return std::string(name) + std::to_string(index_); }

  Run& run_;
  const Spec& s_;
  std::int64_t index_, first_, units_;
};

std::vector<Part> parts_of(Run& run, const Spec& s) {
  std::vector<Part> all;
  for (std::int64_t i = 0; i < Part::parts; ++i) all.emplace_back(run, s, i);
  return all;
}

// Ranks that each have some of the units, one after another in one process.
void forward_in_parts(Run& run, const Spec& s) {
  const ElementwiseKernels& elementwise = run.kernels().elementwise;
  const MutView before = run.saved("before", s.units_shape(), run.activation());
  elementwise.fill(run.exec(), 0.0f, before);
  if (s.first) elementwise.copy(run.exec(), run.in("h_first"), step_of(before, 0));
  std::vector<Part> parts = parts_of(run, s);
  for (Part& part : parts) part.begin();
  for (std::int64_t t = 0; t < s.steps; ++t) {
    for (Part& part : parts) run.kernels().recurrent.forward_step(run.exec(), part.forward(), t, before);
    for (Part& part : parts) {
      const View y = part.forward().y;
      if (t + 1 < s.steps) part.copy(step_of(y, t), part.of(step_of(before, t + 1)));
      part.copy(step_of(y, t), part.of(step_of(run.out("y"), t)));
    }
  }
  for (Part& part : parts) {
    part.copy(part.state("h_last"), part.of(run.out("h_last")));
    if (s.lstm()) part.copy(part.state("c_last"), part.of(run.out("c_last")));
  }
}

void backward_in_parts(Run& run, const Spec& s) {
  const ElementwiseKernels& elementwise = run.kernels().elementwise;
  const Shape state{s.batch, s.hidden};
  const MutView sum = run.saved("dh_before", state, DType::f32), partial = run.saved("partial", state, DType::f32);
  std::vector<Part> parts = parts_of(run, s);
  for (Part& part : parts) part.begin_backward();
  for (std::int64_t t = s.steps - 1; t >= 0; --t) {
    elementwise.fill(run.exec(), 0.0f, sum);
    for (Part& part : parts) {
      const bool wanted = t > 0 || s.first;
      run.kernels().recurrent.backward_step(run.exec(), part.backward(), t,
                                            t + 1 < s.steps || s.last ? View(part.state("dh")) : View{},
                                            part.state("carry"), wanted ? partial : MutView{});
      if (wanted) elementwise.accumulate(run.exec(), partial, sum);
    }
    for (Part& part : parts) part.copy(part.of(sum), part.state("dh"));
  }
  for (Part& part : parts) {
    part.give_gates(part.backward().dgates, run.gradient("p"));
    part.weight_gradient(run.saved("before", s.units_shape(), run.activation()));
    if (!s.first) continue;
    const MutView dh = part.of(run.gradient("h_first"));
    part.copy(part.state("dh"), dh);
    if (s.gru()) elementwise.accumulate(run.exec(), part.state("carry"), dh);
    if (s.lstm()) part.copy(part.state("carry"), part.of(run.gradient("c_first")));
  }
}

OpCase recurrent_case(const Spec& s) {
  OpCase op;
  op.name = "recurrent." + s.name;
  const GradientMode mode = s.trains ? GradientMode::overwritten : GradientMode::none;
  const Shape state{s.batch, s.hidden};
  op.inputs = {{.name = "p", .shape = s.gates_shape(), .gradient = mode},
               {.name = "w",
                .shape = {s.gates() * s.hidden, s.hidden},
                .stored = Stored::f32,
                .gradient = mode,
                .scale = 1.5 / std::sqrt(static_cast<double>(s.hidden))}};
  if (s.gru() && s.bias)
    op.inputs.push_back({.name = "bias", .shape = {s.hidden}, .stored = Stored::f32, .gradient = mode});
  if (s.first) op.inputs.push_back({.name = "h_first", .shape = state, .stored = Stored::f32, .gradient = mode});
  if (s.first && s.lstm())
    op.inputs.push_back({.name = "c_first", .shape = state, .stored = Stored::f32, .gradient = mode});
  op.outputs = {{.name = "y", .shape = s.units_shape()},
                {.name = "h_last",
                 .shape = state,
                 .stored = Stored::f32,
                 .differentiable = s.last,
                 .in_place_of = s.state_in_place ? "h_first" : ""}};
  if (s.lstm())
    op.outputs.push_back({.name = "c_last",
                          .shape = state,
                          .stored = Stored::f32,
                          .differentiable = s.last,
                          .in_place_of = s.state_in_place ? "c_first" : ""});
  op.oracle = [s](const Values& in, Values& out) { oracle(s, in, out); };
  op.bf16_tolerance = 2e-2;  // roundings of the state go from step to step
  op.forward = [s](Run& run) { s.in_parts ? forward_in_parts(run, s) : forward(run, s); };
  if (s.trains) op.backward = [s](Run& run) { s.in_parts ? backward_in_parts(run, s) : backward(run, s); };
  return op;
}

}  // namespace

std::vector<OpCase> recurrent_cases() {
  struct Row {
    std::string name;
    Sizes sizes;
    Options options{};
  };
  // Two threads share the rows of `rows_shared` and the units of `units_shared`, but for Elman's few products.
  const std::vector<Row> rows = {
      {"one", {1, 1, 1}},
      {"one_step", {3, 1, 9}},
      {"one_sequence", {1, 7, 20}},
      {"odd", {5, 6, 19}},
      {"without_states", {2, 5, 16}, {.first = false, .last = false}},
      {"in_place", {3, 4, 24}, {.last = false, .in_place = true}},
      {"not_cached", {2, 3, 33}, {.bias = false, .cached = false}},
      {"decoding", {2, 1, 21}, {.trains = false, .state_in_place = true}},
      {"segment", {4, 5, 32}, {.trains = false, .state_in_place = true}},
      {"rows_shared", {9, 10, 100}},
      {"units_shared", {3, 10, 160}, {.last = false, .in_place = true}},
      {"tall", {37, 2, 40}},
      {"in_parts", {5, 4, 19}, {.in_parts = true}},
      {"in_parts_without_states", {1, 3, 48}, {.first = false, .last = false, .in_place = true, .in_parts = true}},
  };
  std::vector<OpCase> cases;
  for (const auto& [cell, prefix] :
       {std::pair{RecurrentCell::elman, "elman_"}, {RecurrentCell::lstm, "lstm_"}, {RecurrentCell::gru, "gru_"}})
    for (const Row& row : rows) cases.push_back(recurrent_case({cell, prefix + row.name, row.sizes, row.options}));
  return cases;
}

}  // namespace weft::test
