#include <cmath>
#include <numbers>

#include "tests/unit/op_cases/run.hpp"

namespace weft::test {
namespace {

struct Spec {
  std::string name;
  std::int64_t m, k, n;
  bool bias = true, residual = false, gelu = false, in_place = false, cached = true;
  Write write = Write::overwrite;
};

double gelu(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}

OpCase linear_case(const Spec& s) {
  OpCase op;
  op.name = "linear." + s.name;
  const GradientMode mode = s.write == Write::add ? GradientMode::added : GradientMode::overwritten;
  const double weight_scale = 1 / std::sqrt(static_cast<double>(s.k));
  op.inputs = {{.name = "x", .shape = {s.m, s.k}, .gradient = mode},
               {.name = "w", .shape = {s.n, s.k}, .stored = Stored::f32, .gradient = mode, .scale = weight_scale}};
  if (s.bias) op.inputs.push_back({.name = "bias", .shape = {s.n}, .stored = Stored::f32, .gradient = mode});
  if (s.residual) op.inputs.push_back({.name = "residual", .shape = {s.m, s.n}});
  op.outputs = {{.name = "y", .shape = {s.m, s.n}, .in_place_of = s.in_place ? "residual" : ""}};
  op.oracle = [=](const Values& in, Values& out) {
    const auto &x = in.at("x"), &w = in.at("w");
    const auto k = static_cast<std::size_t>(s.k), n = static_cast<std::size_t>(s.n);
    for (std::size_t i = 0; i < static_cast<std::size_t>(s.m); ++i)
      for (std::size_t j = 0; j < n; ++j) {
        double value = s.bias ? in.at("bias")[j] : 0;
        for (std::size_t c = 0; c < k; ++c) value += x[i * k + c] * w[j * k + c];
        if (s.gelu) value = gelu(value);
        if (s.residual) value += in.at("residual")[i * n + j];
        out["y"][i * n + j] = value;
      }
  };
  const auto weight = [s](Run& run) {
    WeightRef w = run.weight("w");
    if (!s.cached) w.pack = nullptr;
    return w;
  };
  op.forward = [=](Run& run) {
    run.kernels().linear.forward(run.exec(), run.in("x"), weight(run), s.bias ? run.in("bias") : View{},
                                 s.gelu ? Epilogue::gelu : Epilogue::none, s.residual ? run.in("residual") : View{},
                                 s.gelu ? run.saved("pre", {s.m, s.n}, run.activation()) : MutView{}, run.out("y"));
  };
  op.backward = [=](Run& run) {
    View dy = run.cotangent("y");
    if (s.gelu) {
      const MutView dpre = run.saved("dpre", {s.m, s.n}, run.activation());
      run.kernels().elementwise.gelu_backward(run.exec(), run.saved("pre", {s.m, s.n}, run.activation()), dy, dpre);
      dy = dpre;
    }
    run.kernels().linear.backward_data(run.exec(), dy, weight(run), s.write, run.gradient("x"));
    run.kernels().linear.backward_weight(run.exec(), dy, run.in("x"), s.write, run.gradient("w"),
                                         s.bias ? run.gradient("bias") : MutView{});
  };
  return op;
}

// A new version of a weight must not be served from the copy of the old one.
OpCase repack_case() {
  OpCase op = linear_case({.name = "new_version", .m = 5, .k = 24, .n = 9});
  op.forward = [](Run& run) {
    const auto product = [&](std::uint64_t version) {
      run.kernels().linear.forward(run.exec(), run.in("x"), run.weight("w", version), run.in("bias"), Epilogue::none,
                                   {}, {}, run.out("y"));
    };
    const MutView dx = run.gradient("x");
    run.replace("w", std::vector<double>(9 * 24, 1.0));
    product(1);
    run.kernels().linear.backward_data(run.exec(), run.cotangent("y"), run.weight("w", 1), Write::overwrite, dx);
    run.restore("w");
    product(2);
  };
  op.backward = [](Run& run) {
    run.kernels().linear.backward_data(run.exec(), run.cotangent("y"), run.weight("w", 2), Write::overwrite,
                                       run.gradient("x"));
    run.kernels().linear.backward_weight(run.exec(), run.cotangent("y"), run.in("x"), Write::overwrite,
                                         run.gradient("w"), run.gradient("bias"));
  };
  return op;
}

OpCase cross_entropy_case(const std::string& name, std::int64_t m, std::int64_t d, std::int64_t v, Write write,
                          bool masked, double logit_scale, std::size_t logits_bytes = 0) {
  OpCase op;
  op.name = "cross_entropy." + name;
  const float scale = 0.7f;
  std::vector<double> targets(static_cast<std::size_t>(m)), weights(targets.size()), cotangent(targets.size());
  for (std::size_t i = 0; i < targets.size(); ++i) {
    targets[i] = static_cast<double>(philox_word(philox_key(11, name), i) % static_cast<std::uint64_t>(v));
    weights[i] = masked && i % 4 == 1 ? 0.0 : 0.5 + 0.25 * static_cast<double>(i % 3);
    if (masked && i % 5 == 2) targets[i] = -1;
    cotangent[i] = targets[i] < 0 ? 0 : static_cast<double>(scale) * weights[i];
  }
  op.inputs = {{.name = "h", .shape = {m, d}, .gradient = GradientMode::overwritten},
               {.name = "w",
                .shape = {v, d},
                .stored = Stored::f32,
                .gradient = write == Write::add ? GradientMode::added : GradientMode::overwritten,
                .scale = logit_scale / std::sqrt(static_cast<double>(d))},
               {.name = "targets", .shape = {m}, .stored = Stored::i32, .values = targets},
               {.name = "weights", .shape = {m}, .stored = Stored::f32, .values = weights}};
  op.outputs = {{.name = "loss", .shape = {m}, .stored = Stored::f32, .cotangent = cotangent}};
  op.oracle = [=](const Values& in, Values& out) {
    const auto &h = in.at("h"), &w = in.at("w");
    const auto cols = static_cast<std::size_t>(d);
    std::vector<double> logits(static_cast<std::size_t>(v));
    for (std::size_t i = 0; i < static_cast<std::size_t>(m); ++i) {
      out["loss"][i] = 0;
      if (targets[i] < 0 || weights[i] == 0) continue;
      double highest = -1e300, sum = 0;
      for (std::size_t j = 0; j < logits.size(); ++j) {
        logits[j] = 0;
        for (std::size_t c = 0; c < cols; ++c) logits[j] += h[i * cols + c] * w[j * cols + c];
        highest = std::max(highest, logits[j]);
      }
      for (const double logit : logits) sum += std::exp(logit - highest);
      out["loss"][i] = highest + std::log(sum) - logits[static_cast<std::size_t>(targets[i])];
    }
  };
  op.forward = [=](Run& run) {
    run.exec().logits_bytes = logits_bytes;
    run.kernels().linear.cross_entropy(run.exec(), run.in("h"), run.weight("w"), run.in("targets"), run.in("weights"),
                                       scale, write, run.out("loss"), {}, {});
  };
  op.backward = [=](Run& run) {
    run.exec().logits_bytes = logits_bytes;
    run.kernels().linear.cross_entropy(run.exec(), run.in("h"), run.weight("w"), run.in("targets"), run.in("weights"),
                                       scale, write, run.out("loss"), run.gradient("h"), run.gradient("w"));
  };
  return op;
}

// The middle shard of a vocabulary; what the other shards hold stands in the statistics that it is given.
OpCase shard_cross_entropy_case(const std::string& name, std::int64_t m, std::int64_t d, std::int64_t v,
                                std::int64_t begin, std::int64_t held, Write write) {
  OpCase op;
  op.name = "shard_cross_entropy." + name;
  const float scale = 0.7f;
  const auto rows = static_cast<std::size_t>(m);
  std::vector<double> targets(rows), weights(rows), cotangent(rows), others(2 * rows);
  for (std::size_t i = 0; i < rows; ++i) {
    targets[i] = static_cast<double>(philox_word(philox_key(11, name), i) % static_cast<std::uint64_t>(v));
    weights[i] = i % 4 == 1 ? 0.0 : 0.5 + 0.25 * static_cast<double>(i % 3);
    if (i % 5 == 2) targets[i] = -1;
    cotangent[i] = targets[i] < 0 ? 0 : static_cast<double>(scale) * weights[i];
    others[i] = 0.3 + 0.01 * static_cast<double>(i % 7);
    const bool here = targets[i] >= static_cast<double>(begin) && targets[i] < static_cast<double>(begin + held);
    others[rows + i] = here || targets[i] < 0 ? 0 : -0.4;
  }
  op.inputs = {{.name = "h", .shape = {m, d}, .gradient = GradientMode::overwritten},
               {.name = "w",
                .shape = {held, d},
                .stored = Stored::f32,
                .gradient = write == Write::add ? GradientMode::added : GradientMode::overwritten,
                .scale = 1 / std::sqrt(static_cast<double>(d))},
               {.name = "targets", .shape = {m}, .stored = Stored::i32, .values = targets},
               {.name = "weights", .shape = {m}, .stored = Stored::f32, .values = weights},
               {.name = "others", .shape = {2, m}, .stored = Stored::f32, .values = others}};
  op.outputs = {{.name = "loss", .shape = {m}, .stored = Stored::f32, .cotangent = cotangent},
                {.name = "stats", .shape = {2, m}, .stored = Stored::f32, .differentiable = false}};
  op.oracle = [=](const Values& in, Values& out) {
    const auto &h = in.at("h"), &w = in.at("w");
    const auto cols = static_cast<std::size_t>(d);
    for (std::size_t i = 0; i < rows; ++i) {
      double sum = 0, at_target = 0;
      for (std::size_t j = 0; j < static_cast<std::size_t>(held); ++j) {
        double logit = 0;
        for (std::size_t c = 0; c < cols; ++c) logit += h[i * cols + c] * w[j * cols + c];
        sum += std::exp(logit);
        if (static_cast<std::int64_t>(targets[i]) == begin + static_cast<std::int64_t>(j)) at_target = logit;
      }
      out["stats"][i] = std::log(sum);
      out["stats"][rows + i] = at_target;
      const bool counts = targets[i] >= 0 && weights[i] != 0;
      out["loss"][i] = counts ? std::log(sum + std::exp(others[i])) - at_target - others[rows + i] : 0;
    }
  };
  const VocabShard shard{begin, v};
  const auto run_both = [=](Run& run, MutView dh, MutView dw) {
    const LinearKernels& linear = run.kernels().linear;
    const MutView logits = run.saved("logits", {m, held}, DType::f32), all = run.saved("all", {2, 2, m}, DType::f32);
    linear.shard_logits(run.exec(), run.in("h"), run.weight("w"), run.in("targets"), shard, logits, run.out("stats"));
    run.kernels().elementwise.copy(run.exec(), run.in("others"), all.slice(0, 1).reshaped({2, m}));
    run.kernels().elementwise.copy(run.exec(), run.out("stats"), all.slice(1, 2).reshaped({2, m}));
    linear.shard_cross_entropy(run.exec(), run.in("h"), run.weight("w"), run.in("targets"), run.in("weights"), scale,
                               shard, all, write, logits, run.out("loss"), dh, dw);
  };
  op.forward = [=](Run& run) { run_both(run, {}, {}); };
  op.backward = [=](Run& run) { run_both(run, run.gradient("h"), run.gradient("w")); };
  return op;
}

}  // namespace

std::vector<OpCase> linear_cases() {
  const std::vector<Spec> specs = {
      {.name = "odd", .m = 7, .k = 19, .n = 13},
      {.name = "one", .m = 1, .k = 1, .n = 1},
      {.name = "without_bias", .m = 5, .k = 33, .n = 8, .bias = false},
      {.name = "one_row", .m = 1, .k = 64, .n = 48},
      {.name = "gelu", .m = 9, .k = 20, .n = 33, .gelu = true},
      {.name = "gelu_without_bias", .m = 4, .k = 16, .n = 16, .bias = false, .gelu = true},
      {.name = "residual", .m = 6, .k = 17, .n = 21, .residual = true},
      {.name = "residual_in_place", .m = 6, .k = 32, .n = 32, .residual = true, .in_place = true},
      {.name = "residual_without_bias", .m = 3, .k = 8, .n = 9, .bias = false, .residual = true},
      {.name = "add_gradients", .m = 8, .k = 24, .n = 12, .write = Write::add},
      {.name = "not_cached", .m = 8, .k = 24, .n = 12, .cached = false},
      {.name = "large", .m = 130, .k = 200, .n = 150, .residual = true},
      {.name = "large_gelu_add_gradients", .m = 70, .k = 150, .n = 260, .gelu = true, .write = Write::add},
  };
  std::vector<OpCase> cases;
  for (const Spec& spec : specs) cases.push_back(linear_case(spec));
  cases.push_back(repack_case());
  return cases;
}

std::vector<OpCase> cross_entropy_cases() {
  return {cross_entropy_case("odd", 7, 19, 11, Write::overwrite, false, 1),
          cross_entropy_case("one", 1, 1, 1, Write::overwrite, false, 1),
          cross_entropy_case("masked_rows_add_gradients", 13, 24, 17, Write::add, true, 1),
          cross_entropy_case("sharp", 9, 16, 40, Write::overwrite, false, 20),
          cross_entropy_case("one_row_large_vocabulary", 1, 8, 5000, Write::overwrite, false, 1),
          cross_entropy_case("large", 150, 32, 300, Write::add, true, 2),
          cross_entropy_case("chunks", 37, 20, 50, Write::overwrite, true, 1, 2000),
          cross_entropy_case("chunks_add_gradients", 37, 20, 50, Write::add, true, 1, 2000),
          cross_entropy_case("chunks_of_one_row", 5, 12, 33, Write::add, false, 1, 1),
          shard_cross_entropy_case("odd", 7, 19, 31, 10, 11, Write::overwrite),
          shard_cross_entropy_case("one", 1, 1, 1, 0, 1, Write::overwrite),
          shard_cross_entropy_case("large", 150, 32, 400, 200, 130, Write::add)};
}

}  // namespace weft::test
