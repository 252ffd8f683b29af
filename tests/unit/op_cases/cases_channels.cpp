#include <cmath>
#include <numbers>

#include "tests/unit/op_cases/run.hpp"

namespace weft::test {
namespace {

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

double gelu(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}

OpCase gate_case(const std::string& name, GateFunction phi, Shape shape, double scale = 1.5) {
  const std::int64_t cols = shape[-1];
  OpCase op;
  op.name = "channel_gate." + name;
  op.inputs = {
      {.name = "x", .shape = shape, .gradient = GradientMode::overwritten},
      {.name = "ab", .shape = {2, cols}, .stored = Stored::f32, .gradient = GradientMode::overwritten, .scale = scale}};
  op.outputs = {{.name = "y", .shape = shape}};
  op.oracle = [=](const Values& in, Values& out) {
    const auto width = static_cast<std::size_t>(cols);
    for (std::size_t i = 0; i < out["y"].size(); ++i) {
      const double a = in.at("ab")[i % width], b = in.at("ab")[width + i % width];
      out["y"][i] = sigmoid(a) * (phi == GateFunction::tanh ? std::tanh(b) : sigmoid(b)) * in.at("x")[i];
    }
  };
  op.forward = [=](Run& run) { run.kernels().channel.gate(run.exec(), phi, run.in("x"), run.in("ab"), run.out("y")); };
  op.backward = [=](Run& run) {
    run.kernels().channel.gate_backward(run.exec(), phi, run.in("x"), run.in("ab"), run.cotangent("y"),
                                        run.gradient("x"), run.gradient("ab"));
  };
  return op;
}

OpCase boom_case(const std::string& name, std::int64_t rows, std::int64_t chunks, std::int64_t cols, double scale) {
  OpCase op;
  op.name = "boom." + name;
  op.inputs = {{.name = "x", .shape = {rows, chunks * cols}, .gradient = GradientMode::overwritten, .scale = scale}};
  op.outputs = {{.name = "y", .shape = {rows, cols}}};
  op.oracle = [=](const Values& in, Values& out) {
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < cols; ++c) {
        double sum = 0;
        for (std::int64_t i = 0; i < chunks; ++i)
          sum += gelu(in.at("x")[static_cast<std::size_t>((r * chunks + i) * cols + c)]);
        out["y"][static_cast<std::size_t>(r * cols + c)] = sum;
      }
  };
  op.forward = [](Run& run) { run.kernels().channel.boom(run.exec(), run.in("x"), run.out("y")); };
  op.backward = [](Run& run) {
    run.kernels().channel.boom_backward(run.exec(), run.in("x"), run.cotangent("y"), run.gradient("x"));
  };
  return op;
}

}  // namespace

std::vector<OpCase> channel_cases() {
  return {gate_case("two_sigmoids", GateFunction::sigmoid, {7, 19}),
          gate_case("tanh", GateFunction::tanh, {2, 5, 21}),
          gate_case("one", GateFunction::tanh, {1, 1}),
          gate_case("packed", GateFunction::sigmoid, {37, 64}),
          gate_case("wide_range", GateFunction::tanh, {3, 40}, 20),
          gate_case("many_rows", GateFunction::tanh, {200, 24}),
          gate_case("odd_slices", GateFunction::sigmoid, {20, 603}),
          gate_case("packed_slices", GateFunction::tanh, {3, 1152}),
          boom_case("odd", 5, 4, 21, 1.5),
          boom_case("one", 1, 1, 1, 1),
          boom_case("one_chunk", 6, 1, 33, 2),
          boom_case("three_packed_chunks", 9, 3, 32, 2),
          boom_case("large", 120, 4, 160, 2)};
}

}  // namespace weft::test
