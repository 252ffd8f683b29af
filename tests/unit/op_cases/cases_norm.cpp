#include <cmath>

#include "tests/unit/op_cases/run.hpp"

namespace weft::test {
namespace {

struct Spec {
  std::string name;
  NormKind kind;
  std::int64_t rows, cols;
  bool branch, bias, statistics;  // statistics: mean and rstd are asked for
  float p;
  Write write;
  bool sum_gradient;  // the sum has a gradient of its own (the residual path)
  float eps = 1e-5f;
};

OpCase norm_case(const Spec& s) {
  const Shape shape{s.rows, s.cols}, row{s.cols};
  const GradientMode parameters = s.write == Write::add ? GradientMode::added : GradientMode::overwritten;
  const bool backward = s.statistics;
  const bool separate = s.branch && s.p > 0;  // only then the branch's gradient is another than x's
  const auto active = [&](GradientMode mode) { return backward ? mode : GradientMode::none; };
  OpCase op;
  op.name = "norm." + s.name;
  op.inputs = {
      {.name = "x", .shape = shape, .gradient = active(GradientMode::overwritten), .offset = 0.3},
      {.name = "gain", .shape = row, .stored = Stored::f32, .gradient = active(parameters), .scale = 0.3, .offset = 1}};
  if (s.branch)
    op.inputs.push_back({.name = "branch",
                         .shape = shape,
                         .gradient = separate ? active(GradientMode::overwritten) : GradientMode::none});
  if (s.bias)
    op.inputs.push_back({.name = "bias", .shape = row, .stored = Stored::f32, .gradient = active(parameters)});
  op.outputs = {{.name = "y", .shape = shape}};
  if (s.branch) op.outputs.push_back({.name = "sum", .shape = shape, .differentiable = s.sum_gradient});
  // One interval from token 3 on of sequences of 5 more tokens than are held here.
  const TokenMap map = token_map(s.rows, s.rows + 5, 3, 2);
  const std::int64_t cols_global = s.cols + 7, col_begin = 5;
  const DropoutSpec dropout = dropout_spec(s.p, map, cols_global, col_begin);

  op.oracle = [=](const Values& in, Values& out) {
    const auto& gain = in.at("gain");
    const auto cols = static_cast<std::size_t>(s.cols);
    for (std::size_t r = 0; r < static_cast<std::size_t>(s.rows); ++r) {
      std::vector<double> x(in.at("x").begin() + static_cast<std::ptrdiff_t>(r * cols),
                            in.at("x").begin() + static_cast<std::ptrdiff_t>((r + 1) * cols));
      for (std::size_t c = 0; c < cols && s.branch; ++c) {
        const std::int64_t index =
            map.global_row(static_cast<std::int64_t>(r)) * cols_global + col_begin + static_cast<std::int64_t>(c);
        x[c] += in.at("branch")[r * cols + c] * dropout_factor(s.p, index);
        out["sum"][r * cols + c] = x[c];
      }
      double mean = 0, square = 0;
      if (s.kind == NormKind::layer)
        for (const double v : x) mean += v / static_cast<double>(cols);
      for (const double v : x) square += (v - mean) * (v - mean) / static_cast<double>(cols);
      const double rstd = 1 / std::sqrt(square + static_cast<double>(s.eps));
      for (std::size_t c = 0; c < cols; ++c)
        out["y"][r * cols + c] = (x[c] - mean) * rstd * gain[c] + (s.bias ? in.at("bias")[c] : 0);
    }
  };
  op.forward = [=](Run& run) {
    const bool mean = s.statistics && s.kind == NormKind::layer;
    run.kernels().norm.forward(run.exec(), s.kind, run.in("x"), s.branch ? run.in("branch") : View{},
                               run.with_key(dropout), run.in("gain"), s.bias ? run.in("bias") : View{}, s.eps,
                               s.branch ? run.out("sum") : MutView{}, run.out("y"),
                               mean ? run.saved("mean", {s.rows}, DType::f32) : MutView{},
                               s.statistics ? run.saved("rstd", {s.rows}, DType::f32) : MutView{});
  };
  if (!backward) return op;
  op.backward = [=](Run& run) {
    run.kernels().norm.backward(
        run.exec(), s.kind, run.cotangent("y"), s.branch ? View(run.out("sum")) : run.in("x"), run.in("gain"),
        s.kind == NormKind::layer ? View(run.saved("mean", {s.rows}, DType::f32)) : View{},
        run.saved("rstd", {s.rows}, DType::f32), s.sum_gradient ? run.cotangent("sum") : View{}, run.with_key(dropout),
        s.write, run.gradient("x"), separate ? run.gradient("branch") : MutView{}, run.gradient("gain"),
        s.bias ? run.gradient("bias") : MutView{});
  };
  return op;
}

}  // namespace

std::vector<OpCase> norm_cases() {
  constexpr auto layer = NormKind::layer, rms = NormKind::rms;
  constexpr auto overwrite = Write::overwrite, add = Write::add;
  const std::vector<Spec> specs = {
      {"layer", layer, 7, 33, false, true, true, 0, overwrite, false},
      {"layer_add_gradients", layer, 5, 48, false, true, true, 0, add, false},
      {"layer_without_statistics", layer, 4, 20, false, true, false, 0, overwrite, false},
      {"layer_without_bias", layer, 3, 17, false, false, true, 0, overwrite, false},
      {"layer_one_row", layer, 1, 5, false, true, true, 0, overwrite, false},
      {"layer_two_columns", layer, 9, 2, false, true, true, 0, overwrite, false, 0.1f},
      {"layer_branch", layer, 6, 37, true, true, true, 0, overwrite, true},
      {"layer_branch_dropout", layer, 6, 37, true, true, true, 0.3f, overwrite, true},
      {"layer_branch_dropout_last", layer, 6, 64, true, true, true, 0.3f, add, false},
      {"layer_large", layer, 150, 384, true, true, true, 0.3f, overwrite, true},
      {"layer_1501_columns", layer, 5, 1501, true, true, true, 0.3f, overwrite, true},
      {"layer_4099_columns", layer, 5, 4099, true, true, true, 0.3f, overwrite, true},
      {"layer_8208_columns", layer, 5, 8208, true, true, true, 0, add, true},
      {"rms", rms, 7, 33, false, false, true, 0, overwrite, false},
      {"rms_one_column", rms, 3, 1, false, false, true, 0, overwrite, false, 0.5f},
      {"rms_branch_add_gradients", rms, 6, 37, true, false, true, 0, add, true},
      {"rms_branch_dropout", rms, 6, 301, true, false, true, 0.3f, overwrite, true},
      {"rms_4104_columns", rms, 5, 4104, false, false, true, 0, overwrite, false},
      {"rms_large", rms, 300, 130, true, false, true, 0, overwrite, true},
  };
  std::vector<OpCase> cases;
  for (const Spec& spec : specs) cases.push_back(norm_case(spec));
  return cases;
}

}  // namespace weft::test
