#include <cmath>

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
  op.forward = [s](Run& run) { forward(run, s); };
  if (s.trains) op.backward = [s](Run& run) { backward(run, s); };
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
  };
  std::vector<OpCase> cases;
  for (const auto& [cell, prefix] :
       {std::pair{RecurrentCell::elman, "elman_"}, {RecurrentCell::lstm, "lstm_"}, {RecurrentCell::gru, "gru_"}})
    for (const Row& row : rows) cases.push_back(recurrent_case({cell, prefix + row.name, row.sizes, row.options}));
  return cases;
}

}  // namespace weft::test
