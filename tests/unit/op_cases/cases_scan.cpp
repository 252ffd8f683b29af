// Elementwise recurrences: each cell step by step and in parallel pieces, against one float64 transcription of its equations.
#include "core/kernels/scan.hpp"

#include <algorithm>
#include <cmath>

#include "tests/unit/op_cases/run.hpp"

namespace weft::test {
namespace {

struct Spec {
  std::string name;
  ScanCell cell;
  std::int64_t batch, steps, channels;
  std::int64_t span = 0;  // of the backward pass, and of the forward pass where the cell is affine
  std::int64_t reverse_from = 1 << 30;
  bool initial = false;  // an initial state with a gradient, and a gradient of the last state
  // SRU:
  bool skip = true, mask = false, tanh = false;
  bool skip_in_u = false;  // the 4-matrix form: x′ is a fourth column of u
  float skip_scale = 1;
  Write write = Write::overwrite;
  std::int64_t steps_before = 0;  // mean
};

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double positive(double x) { return x >= 0 ? x + 0.5 : sigmoid(x); }

bool is_sru(ScanCell cell) { return cell == ScanCell::sru || cell == ScanCell::sru_affine; }

std::int64_t columns_of(const Spec& s) { return traits_of(s.cell).gates + (s.skip_in_u ? 1 : 0); }

ScanSpec scan_spec(const Spec& s) {
  ScanSpec spec;
  spec.cell = s.cell;
  spec.tanh = s.tanh;
  spec.skip_scale = s.skip_scale;
  spec.reverse_from = s.reverse_from;
  spec.steps_before = s.steps_before;
  spec.backward_span = s.span;
  spec.forward_span = traits_of(s.cell).affine ? s.span : 0;
  return spec;
}

// Columns [first, first + count) of a [B, T, columns] view.
template <class AnyView>
AnyView columns(AnyView view, std::int64_t first, std::int64_t count) {
  using Byte = std::conditional_t<std::is_same_v<AnyView, View>, const char, char>;
  view.data = static_cast<Byte*>(view.data) + static_cast<std::size_t>(first) * size_of(view.dtype);
  view.shape[2] = count;
  return view;
}

ScanOperands operands(Run& run, const Spec& s) {
  const std::int64_t gates = traits_of(s.cell).gates * s.channels;
  ScanOperands in;
  in.u = columns(run.in("u"), 0, gates);
  if (!is_sru(s.cell)) return in;
  if (s.skip) in.skip = s.skip_in_u ? columns(run.in("u"), gates, s.channels) : run.in("skip");
  if (s.cell == ScanCell::sru) {
    in.v_f = run.in("v_f");
    in.v_r = run.in("v_r");
  }
  in.b_f = run.in("b_f");
  in.b_r = run.in("b_r");
  if (s.mask) in.mask = run.in("mask");
  return in;
}

// Channel d of sequence b at one token, which stands in `row` of u.
struct Step {
  double c, h;
};
Step step_of(const Spec& s, const Values& in, std::size_t row, std::size_t b, std::size_t d, double before,
             std::int64_t steps_so_far) {
  const auto channels = static_cast<std::size_t>(s.channels), cols = static_cast<std::size_t>(columns_of(s)) * channels;
  const auto u = [&](std::size_t gate) { return in.at("u")[row * cols + gate * channels + d]; };
  const auto mix = [&](double f, double value) { return f * before + (1 - f) * value; };
  switch (s.cell) {
    case ScanCell::sru:
    case ScanCell::sru_affine: {
      const bool stateful = s.cell == ScanCell::sru;
      const double f = sigmoid(u(1) + (stateful ? in.at("v_f")[d] * before : 0) + in.at("b_f")[d]);
      const double r = sigmoid(u(2) + (stateful ? in.at("v_r")[d] * before : 0) + in.at("b_r")[d]);
      const double c = mix(f, u(0)), m = s.mask ? in.at("mask")[b * channels + d] : 1;
      const double x = !s.skip       ? 0
                       : s.skip_in_u ? u(3)
                                     : static_cast<double>(s.skip_scale) * in.at("skip")[row * channels + d];
      return {c, ((s.tanh ? std::tanh(c) : c) - x) * m * r + x};
    }
    case ScanCell::qrnn_f: {
      const double c = mix(sigmoid(u(1)), std::tanh(u(0)));
      return {c, c};
    }
    case ScanCell::qrnn_fo: {
      const double c = mix(sigmoid(u(1)), std::tanh(u(0)));
      return {c, sigmoid(u(2)) * c};
    }
    case ScanCell::mingru: {
      const double c = mix(1 - sigmoid(u(0)), positive(u(1)));
      return {c, c};
    }
    case ScanCell::minlstm: {
      const double f = sigmoid(u(0)), i = sigmoid(u(1)), c = (f * before + i * positive(u(2))) / (f + i);
      return {c, c};
    }
    case ScanCell::mean: {
      const double c = before + u(0);
      return {c, c / static_cast<double>(s.steps_before + steps_so_far)};
    }
  }
  return {};
}

OpCase scan_case(const Spec& s) {
  const auto overwritten = GradientMode::overwritten;
  const GradientMode parameters = s.write == Write::add ? GradientMode::added : overwritten;
  const Shape state{s.batch, s.channels}, channels{s.channels}, sequence{s.batch, s.steps, s.channels};
  OpCase op;
  op.name = "scan." + s.name;
  op.inputs = {{.name = "u",
                .shape = {s.batch, s.steps, columns_of(s) * s.channels},
                .gradient = overwritten,
                .scale = s.cell == ScanCell::mean ? 1.0 : 1.5}};
  if (is_sru(s.cell)) {
    if (s.skip && !s.skip_in_u) op.inputs.push_back({.name = "skip", .shape = sequence, .gradient = overwritten});
    for (const char* name : {"v_f", "v_r"})
      if (s.cell == ScanCell::sru)  // with larger ones the recurrence is chaotic and enlarges rounding
        op.inputs.push_back(
            {.name = name, .shape = channels, .stored = Stored::f32, .gradient = parameters, .scale = 0.6});
    for (const char* name : {"b_f", "b_r"})
      op.inputs.push_back({.name = name, .shape = channels, .stored = Stored::f32, .gradient = parameters});
    if (s.mask) op.inputs.push_back({.name = "mask", .shape = state, .stored = Stored::f32, .scale = 0.5, .offset = 1});
  }
  if (s.initial)
    op.inputs.push_back({.name = "initial", .shape = state, .stored = Stored::f32, .gradient = overwritten});
  op.outputs = {{.name = "h", .shape = sequence},
                {.name = "final", .shape = state, .stored = Stored::f32, .differentiable = s.initial}};
  op.oracle = [=](const Values& in, Values& out) {
    for (std::int64_t b = 0; b < s.batch; ++b)
      for (std::int64_t d = 0; d < s.channels; ++d) {
        const auto at = static_cast<std::size_t>(b * s.channels + d);
        double c = s.initial ? in.at("initial")[at] : 0;
        for (std::int64_t i = 0; i < s.steps; ++i) {
          const std::int64_t t = d >= s.reverse_from ? s.steps - 1 - i : i;
          const auto row = static_cast<std::size_t>(b * s.steps + t);
          const Step step = step_of(s, in, row, static_cast<std::size_t>(b), static_cast<std::size_t>(d), c, i + 1);
          c = step.c;
          out["h"][row * static_cast<std::size_t>(s.channels) + static_cast<std::size_t>(d)] = step.h;
        }
        out["final"][at] = c;
      }
  };
  const Shape states{s.batch, scan_chunks(s.steps), s.channels};
  op.forward = [=](Run& run) {
    run.kernels().scan.forward(run.exec(), scan_spec(s), operands(run, s), s.initial ? run.in("initial") : View{},
                               run.out("h"), run.saved("states", states, DType::f32), run.out("final"));
  };
  op.backward = [=](Run& run) {
    ScanGradients to;
    const std::int64_t gates = traits_of(s.cell).gates * s.channels;
    to.du = columns(run.gradient("u"), 0, gates);
    to.write = s.write;
    if (is_sru(s.cell)) {
      if (s.skip) to.dskip = s.skip_in_u ? columns(run.gradient("u"), gates, s.channels) : run.gradient("skip");
      if (s.cell == ScanCell::sru) {
        to.dv_f = run.gradient("v_f");
        to.dv_r = run.gradient("v_r");
      }
      to.db_f = run.gradient("b_f");
      to.db_r = run.gradient("b_r");
    }
    if (s.initial) to.initial = run.gradient("initial");
    run.kernels().scan.backward(run.exec(), scan_spec(s), operands(run, s), run.saved("states", states, DType::f32),
                                run.cotangent("h"), s.initial ? run.cotangent("final") : View{}, to);
  };
  return op;
}

// final = product⊙initial + sum: the states that 0 and a large number lead to give both.
OpCase summary_case(const Spec& s) {
  OpCase op = scan_case(s);
  op.name = "scan.summary_" + s.name;
  op.outputs = {{.name = "sum", .shape = {s.batch, s.channels}, .stored = Stored::f32},
                {.name = "product", .shape = {s.batch, s.channels}, .stored = Stored::f32}};
  const auto final_from = [s, oracle = op.oracle](Values in, double initial) {
    in["initial"].assign(static_cast<std::size_t>(s.batch * s.channels), initial);
    Values out;
    out["h"].resize(static_cast<std::size_t>(s.batch * s.steps * s.channels));
    out["final"].resize(in["initial"].size());
    oracle(in, out);
    return out["final"];
  };
  op.oracle = [=](const Values& in, Values& out) {
    out["sum"] = final_from(in, 0);
    out["product"] = final_from(in, 1e6);
    for (std::size_t i = 0; i < out["sum"].size(); ++i) out["product"][i] = (out["product"][i] - out["sum"][i]) * 1e-6;
  };
  op.forward = [=](Run& run) {
    run.kernels().scan.summary(run.exec(), scan_spec(s), operands(run, s), run.out("product"), run.out("sum"));
  };
  op.backward = {};
  for (Input& input : op.inputs) input.gradient = GradientMode::none;
  return op;
}

// The maps of parts `from` to `to`, one after another from 0.
OpCase carry_case(std::int64_t parts, std::int64_t from, std::int64_t to, std::int64_t count) {
  OpCase op;
  op.name = fmt::format("scan.carry_{}_to_{}_of_{}_{}", from, to, parts, count);
  op.inputs = {{.name = "maps", .shape = {parts, 2, count}, .stored = Stored::f32, .gradient = GradientMode::none}};
  op.outputs = {{.name = "state", .shape = {count}, .stored = Stored::f32}};
  op.oracle = [=](const Values& in, Values& out) {
    const auto& maps = in.at("maps");
    out["state"].assign(static_cast<std::size_t>(count), 0.0);
    for (std::int64_t part = from; part != to; part += from < to ? 1 : -1)
      for (std::int64_t i = 0; i < count; ++i) {
        double& c = out["state"][static_cast<std::size_t>(i)];
        c = maps[static_cast<std::size_t>(2 * part * count + i)] * c +
            maps[static_cast<std::size_t>((2 * part + 1) * count + i)];
      }
  };
  op.forward = [=](Run& run) { run.kernels().scan.carry(run.exec(), run.in("maps"), from, to, run.out("state")); };
  return op;
}

// dinitial = product⊙dfinal + sum, with ones for dfinal.
OpCase backward_summary_case(const Spec& s) {
  OpCase op = scan_case(s);
  op.name = "scan.backward_summary_" + s.name;
  for (Input& input : op.inputs)
    if (input.name != "initial") input.gradient = GradientMode::none;
  op.outputs[1].cotangent.assign(static_cast<std::size_t>(s.batch * s.channels), 1.0);
  op.backward = [=](Run& run) {
    const Shape state{s.batch, s.channels};
    const MutView product = run.saved("product", state, DType::f32), sum = run.saved("sum", state, DType::f32);
    run.kernels().scan.backward_summary(run.exec(), scan_spec(s), operands(run, s),
                                        run.saved("states", {s.batch, scan_chunks(s.steps), s.channels}, DType::f32),
                                        run.cotangent("h"), product, sum);
    run.kernels().elementwise.add(run.exec(), product, sum, run.gradient("initial"));
  };
  return op;
}

}  // namespace

std::vector<OpCase> scan_cases() {
  using enum ScanCell;
  constexpr std::int64_t chunk = scan_chunk;
  const std::vector<Spec> specs = {
      {.name = "sru", .cell = sru, .batch = 3, .steps = 7, .channels = 21, .initial = true},
      {.name = "sru_tanh_mask_add",
       .cell = sru,
       .batch = 2,
       .steps = chunk + 3,
       .channels = 9,
       .initial = true,
       .mask = true,
       .tanh = true,
       .skip_scale = 1.7f,
       .write = Write::add},
      {.name = "sru_one_step", .cell = sru, .batch = 1, .steps = 1, .channels = 1},
      {.name = "sru_four_columns",
       .cell = sru,
       .batch = 2,
       .steps = 5,
       .channels = 37,
       .mask = true,
       .skip_in_u = true},
      {.name = "sru_without_skip", .cell = sru, .batch = 1, .steps = 9, .channels = 5, .skip = false, .tanh = true},
      {.name = "sru_bidirectional",
       .cell = sru,
       .batch = 2,
       .steps = chunk + 1,
       .channels = 26,
       .reverse_from = 13,
       .initial = true},
      {.name = "sru_backward_in_pieces",
       .cell = sru,
       .batch = 2,
       .steps = 5 * chunk + 7,
       .channels = 5,
       .span = chunk,
       .reverse_from = 2,
       .initial = true,
       .tanh = true},
      {.name = "sru_affine",
       .cell = sru_affine,
       .batch = 2,
       .steps = 2 * chunk,
       .channels = 19,
       .mask = true,
       .skip_scale = 0.6f},
      {.name = "sru_affine_pieces",
       .cell = sru_affine,
       .batch = 2,
       .steps = 6 * chunk + 1,
       .channels = 7,
       .span = 2 * chunk,
       .initial = true},
      {.name = "sru_affine_bidirectional_pieces",
       .cell = sru_affine,
       .batch = 1,
       .steps = 3 * chunk,
       .channels = 10,
       .span = chunk,
       .reverse_from = 5,
       .skip_in_u = true},
      {.name = "qrnn_f", .cell = qrnn_f, .batch = 3, .steps = 11, .channels = 17},
      {.name = "qrnn_f_pieces",
       .cell = qrnn_f,
       .batch = 1,
       .steps = 4 * chunk + 5,
       .channels = 33,
       .span = chunk,
       .initial = true},
      {.name = "qrnn_fo", .cell = qrnn_fo, .batch = 2, .steps = chunk + 9, .channels = 35, .initial = true},
      {.name = "qrnn_fo_one_step", .cell = qrnn_fo, .batch = 1, .steps = 1, .channels = 3, .initial = true},
      {.name = "qrnn_fo_pieces",
       .cell = qrnn_fo,
       .batch = 2,
       .steps = 3 * chunk - 1,
       .channels = 6,
       .span = chunk,
       .reverse_from = 3},
      {.name = "qrnn_fo_wide", .cell = qrnn_fo, .batch = 1, .steps = 3, .channels = 290},
      {.name = "mingru", .cell = mingru, .batch = 3, .steps = 13, .channels = 18, .initial = true},
      {.name = "mingru_pieces", .cell = mingru, .batch = 2, .steps = 2 * chunk + 1, .channels = 8, .span = chunk},
      {.name = "minlstm", .cell = minlstm, .batch = 3, .steps = 6, .channels = 22, .initial = true},
      {.name = "minlstm_pieces",
       .cell = minlstm,
       .batch = 1,
       .steps = 7 * chunk,
       .channels = 12,
       .span = 2 * chunk,
       .initial = true},
      {.name = "mean", .cell = mean, .batch = 2, .steps = 10, .channels = 23},
      {.name = "mean_goes_on_in_pieces",
       .cell = mean,
       .batch = 2,
       .steps = 3 * chunk + 2,
       .channels = 4,
       .span = chunk,
       .initial = true,
       .steps_before = 5},
  };
  std::vector<OpCase> cases;
  for (const Spec& spec : specs) cases.push_back(scan_case(spec));
  for (const Spec& spec : specs) {
    if (!spec.initial || spec.steps <= chunk) continue;
    if (traits_of(spec.cell).affine) cases.push_back(summary_case(spec));
    cases.push_back(backward_summary_case(spec));
  }
  for (const auto& [parts, from, to] : {std::array{1, 0, 0}, {4, 0, 3}, {4, 3, 0}, {5, 0, 2}, {5, 4, 3}, {3, 2, 2}})
    for (const std::int64_t count : {1, 301}) cases.push_back(carry_case(parts, from, to, count));
  return cases;
}

}  // namespace weft::test
