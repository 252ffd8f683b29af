#include <cmath>

#include "tests/unit/op_cases/run.hpp"

namespace weft::test {
namespace {

// A step state as operands: the fields that a case sets, and those that it reads, through a byte view.
StepState state_at(std::int64_t applied, float lr, float clip_scale = 1, std::int32_t skip = 0) {
  StepState state;
  state.applied = applied;
  state.lr = lr;
  state.clip_scale = clip_scale;
  state.skip = skip;
  return state;
}

std::vector<double> bytes_of(const StepState& state) {
  const auto* bytes = reinterpret_cast<const unsigned char*>(&state);
  return {bytes, bytes + sizeof state};
}

Input state_input(const StepState& state) {
  return {.name = "state", .shape = {sizeof(StepState)}, .stored = Stored::bytes, .values = bytes_of(state)};
}

Output in_place(const std::string& name, std::int64_t count) {
  return {
      .name = name + "_after", .shape = {count}, .stored = Stored::f32, .differentiable = false, .in_place_of = name};
}

OpCase step_case(const std::string& name, std::int64_t count, const StepState& state) {
  OpCase op;
  op.name = name;
  op.f32_only = true;
  const Shape shape{count};
  op.inputs = {state_input(state),
               {.name = "grad", .shape = shape, .stored = Stored::f32, .scale = 0.1},
               {.name = "value", .shape = shape, .stored = Stored::f32},
               {.name = "m", .shape = shape, .stored = Stored::f32, .scale = 0.1}};
  op.outputs = {in_place("value", count), in_place("m", count)};
  return op;
}

void add_second_moment(OpCase& op, std::int64_t count) {
  std::vector<double> v(static_cast<std::size_t>(count));
  for (std::size_t i = 0; i < v.size(); ++i) v[i] = std::pow(normal(philox_key(5, op.name), i) * 0.1, 2);
  op.inputs.push_back({.name = "v", .shape = {count}, .stored = Stored::f32, .values = v});
  op.outputs.push_back(in_place("v", count));
}

// torch.optim.AdamW: value *= 1 − lr·wd, then value −= lr·m̂ / (√v̂ + eps).
OpCase adamw_case(const std::string& name, std::int64_t count, const StepState& state, AdamWSpec spec) {
  OpCase op = step_case("adamw." + name, count, state);
  add_second_moment(op, count);
  op.oracle = [=](const Values& in, Values& out) {
    const double b1 = static_cast<double>(spec.beta1), b2 = static_cast<double>(spec.beta2);
    const double t = static_cast<double>(state.applied), lr = static_cast<double>(state.lr);
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      double value = in.at("value")[i], m = in.at("m")[i], v = in.at("v")[i];
      if (!state.skip) {
        const double g = in.at("grad")[i] * static_cast<double>(state.clip_scale);
        value *= 1 - lr * static_cast<double>(spec.weight_decay);
        m = b1 * m + (1 - b1) * g;
        v = b2 * v + (1 - b2) * g * g;
        value -=
            lr * (m / (1 - std::pow(b1, t))) / (std::sqrt(v / (1 - std::pow(b2, t))) + static_cast<double>(spec.eps));
      }
      out["value_after"][i] = value;
      out["m_after"][i] = m;
      out["v_after"][i] = v;
    }
  };
  op.forward = [=](Run& run) {
    run.kernels().optim.adamw(run.exec(), run.in("state"), spec, run.in("grad"), run.out("value_after"),
                              run.out("m_after"), run.out("v_after"));
  };
  return op;
}

OpCase radam_case(const std::string& name, std::int64_t count, const StepState& state, RAdamSpec spec) {
  OpCase op = step_case("radam." + name, count, state);
  add_second_moment(op, count);
  op.oracle = [=](const Values& in, Values& out) {
    const double b1 = static_cast<double>(spec.beta1), b2 = static_cast<double>(spec.beta2);
    const double t = static_cast<double>(state.applied), lr = static_cast<double>(state.lr), b2t = std::pow(b2, t);
    const double longest = 2 / (1 - b2) - 1, length = longest - 2 * t * b2t / (1 - b2t);
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      const double g = in.at("grad")[i] * static_cast<double>(state.clip_scale);
      const double m = b1 * in.at("m")[i] + (1 - b1) * g, v = b2 * in.at("v")[i] + (1 - b2) * g * g;
      double value = in.at("value")[i] * (1 - lr * static_cast<double>(spec.weight_decay));
      if (length >= 5) {
        const double rectifier =
            std::sqrt((1 - b2t) * (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length));
        value -= lr * rectifier / (1 - std::pow(b1, t)) * m / (std::sqrt(v) + static_cast<double>(spec.eps));
      }
      out["value_after"][i] = value;
      out["m_after"][i] = m;
      out["v_after"][i] = v;
    }
  };
  op.forward = [=](Run& run) {
    run.kernels().optim.radam(run.exec(), run.in("state"), spec, run.in("grad"), run.out("value_after"),
                              run.out("m_after"), run.out("v_after"));
  };
  return op;
}

OpCase sgd_case(const std::string& name, std::int64_t count, const StepState& state, SgdSpec spec) {
  OpCase op = step_case("sgd." + name, count, state);
  op.oracle = [=](const Values& in, Values& out) {
    for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i) {
      double value = in.at("value")[i], m = in.at("m")[i];
      const double momentum = static_cast<double>(spec.momentum);
      double g =
          in.at("grad")[i] * static_cast<double>(state.clip_scale) + static_cast<double>(spec.weight_decay) * value;
      if (momentum > 0) {
        m = momentum * m + g;
        g = spec.nesterov ? g + momentum * m : m;
      }
      value -= static_cast<double>(state.lr) * g;
      out["value_after"][i] = value;
      out["m_after"][i] = m;
    }
  };
  op.forward = [=](Run& run) {
    run.kernels().optim.sgd(run.exec(), run.in("state"), spec, run.in("grad"), run.out("value_after"),
                            spec.momentum > 0 ? run.out("m_after") : MutView{});
  };
  return op;
}

// The whole state is compared byte by byte.
OpCase prepare_case(const std::string& name, double sum_of_squares, std::vector<double> loss, float max_norm,
                    float clip_scale, bool skip) {
  OpCase op;
  op.name = "optim.prepare_" + name;
  op.f32_only = true;
  op.f32_tolerance = 0;
  StepState before = state_at(6, 0.5f, 0.25f, 1);
  op.inputs = {state_input(before), {.name = "sum", .shape = {1}, .stored = Stored::f64, .values = {sum_of_squares}}};
  if (!loss.empty()) op.inputs.push_back({.name = "loss", .shape = {1}, .stored = Stored::f64, .values = loss});
  op.outputs = {{.name = "state_after",
                 .shape = {sizeof(StepState)},
                 .stored = Stored::bytes,
                 .differentiable = false,
                 .in_place_of = "state"}};
  StepState after = before;
  after.applied = skip ? 6 : 7;
  after.grad_norm = static_cast<float>(std::sqrt(sum_of_squares));
  after.clip_scale = clip_scale;
  after.skip = skip ? 1 : 0;
  op.oracle = [after](const Values&, Values& out) { out["state_after"] = bytes_of(after); };
  op.forward = [=](Run& run) {
    run.kernels().optim.prepare(run.exec(), run.in("sum"), loss.empty() ? View{} : run.in("loss"), max_norm,
                                run.out("state_after"));
  };
  return op;
}

}  // namespace

std::vector<OpCase> optim_cases() {
  const double inf = std::numeric_limits<double>::infinity();
  return {adamw_case("first_step", 37, state_at(1, 1e-2f), {}),
          adamw_case("later_step_clipped", 1000, state_at(50, 1e-2f, 0.3f), {0.9f, 0.999f, 1e-6f, 0.01f}),
          adamw_case("without_decay", 1, state_at(3, 1e-3f), {0.9f, 0.95f, 1e-8f, 0}),
          adamw_case("skipped", 20, state_at(3, 1e-2f, 1, 1), {}),
          adamw_case("large", 100003, state_at(9, 1e-2f, 0.5f), {}),
          sgd_case("momentum", 37, state_at(2, 1e-1f), {0.9f, 0.01f, false}),
          sgd_case("nesterov_clipped", 130, state_at(2, 1e-1f, 0.3f), {0.9f, 0.01f, true}),
          sgd_case("plain", 19, state_at(2, 1e-1f), {0, 0.1f, false}),
          sgd_case("large", 70001, state_at(2, 1e-1f), {0.9f, 0, false}),
          radam_case("not_yet_tractable", 37, state_at(3, 1e-2f), {}),
          radam_case("rectified", 37, state_at(8, 1e-2f, 0.5f), {}),
          radam_case("late_large", 50001, state_at(3000, 1e-2f), {}),
          prepare_case("below_the_limit", 0.25, {1.5}, 1.0f, 1.0f, false),
          prepare_case("clipped", 16, {1.5}, 1.0f, 0.25f, false),
          prepare_case("without_a_limit", 16, {}, 0, 1.0f, false),
          prepare_case("infinite_norm", inf, {1.5}, 0, 1.0f, true),
          prepare_case("infinite_loss", 0.25, {inf}, 1.0f, 1.0f, true)};
}

}  // namespace weft::test
