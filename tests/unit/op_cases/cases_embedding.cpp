#include <cmath>

#include "tests/unit/op_cases/run.hpp"

namespace weft::test {
namespace {

struct Spec {
  std::string name;
  std::int64_t sequences, length, cols, vocabulary, positions;  // positions 0: no table
  float p;
  TokenMap map;
  std::int64_t held_begin = 0, held = 0;  // of a shard; held 0: the table is whole
};

OpCase embedding_case(const Spec& s) {
  const std::int64_t rows = s.sequences * s.length, held = s.held ? s.held : s.vocabulary;
  const VocabShard shard = s.held ? VocabShard{s.held_begin, s.vocabulary} : VocabShard{};
  OpCase op;
  op.name = "embedding." + s.name;
  std::vector<double> tokens(static_cast<std::size_t>(rows));
  for (std::size_t i = 0; i < tokens.size(); ++i)
    tokens[i] = static_cast<double>(philox_word(philox_key(3, s.name), i) % static_cast<std::uint64_t>(s.vocabulary));
  op.inputs = {{.name = "tokens", .shape = {rows}, .stored = Stored::i32, .values = tokens},
               {.name = "table", .shape = {held, s.cols}, .stored = Stored::f32, .gradient = GradientMode::added}};
  if (s.positions)
    op.inputs.push_back(
        {.name = "positions", .shape = {s.positions, s.cols}, .stored = Stored::f32, .gradient = GradientMode::added});
  op.outputs = {{.name = "y", .shape = {rows, s.cols}}};
  const DropoutSpec dropout = dropout_spec(s.p, s.map, s.cols + 3, 2);
  op.oracle = [=](const Values& in, Values& out) {
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < s.cols; ++c) {
        const auto token = static_cast<std::int64_t>(in.at("tokens")[static_cast<std::size_t>(r)]) - s.held_begin;
        double value = 0;
        if (token >= 0 && token < held) value = in.at("table")[static_cast<std::size_t>(token * s.cols + c)];
        const std::int64_t position = s.map.position(r % s.length);
        if (s.positions) value += in.at("positions")[static_cast<std::size_t>(position * s.cols + c)];
        out["y"][static_cast<std::size_t>(r * s.cols + c)] =
            value * dropout_factor(s.p, s.map.global_row(r) * (s.cols + 3) + 2 + c);
      }
  };
  op.forward = [=](Run& run) {
    run.kernels().embedding.forward(run.exec(), run.in("tokens"), run.in("table"), shard,
                                    s.positions ? run.in("positions") : View{}, s.map, run.with_key(dropout),
                                    run.out("y"));
  };
  op.backward = [=](Run& run) {
    run.kernels().embedding.backward(run.exec(), run.cotangent("y"), run.in("tokens"), shard, s.map,
                                     run.with_key(dropout), run.gradient("table"),
                                     s.positions ? run.gradient("positions") : MutView{});
  };
  return op;
}

// Heads as a slice of a wider row, as in a fused projection; the other columns stay as they are.
OpCase rotary_case(const std::string& name, std::int64_t batch, std::int64_t tokens, std::int64_t heads,
                   std::int64_t dim, TokenMap map, bool inverse, bool in_place) {
  const std::int64_t behind = in_place ? 0 : 5, width = heads * dim + behind;
  const float theta = 1000;
  OpCase op;
  op.name = "rotary." + name;
  op.inputs = {{.name = "x",
                .shape = {batch, tokens, width},
                .gradient = in_place ? GradientMode::none : GradientMode::overwritten}};
  op.outputs = {{.name = "y",
                 .shape = {batch, tokens, heads, dim},
                 .differentiable = !in_place,
                 .in_place_of = in_place ? "x" : ""}};
  op.oracle = [=](const Values& in, Values& out) {
    const std::int64_t half = dim / 2;
    for (std::int64_t row = 0; row < batch * tokens; ++row)
      for (std::int64_t h = 0; h < heads; ++h)
        for (std::int64_t i = 0; i < half; ++i) {
          const double angle =
              (inverse ? -1.0 : 1.0) * static_cast<double>(map.position(row % tokens)) *
              std::pow(static_cast<double>(theta), -2.0 * static_cast<double>(i) / static_cast<double>(dim));
          const auto from = static_cast<std::size_t>(row * width + h * dim + i);
          const auto to = static_cast<std::size_t>((row * heads + h) * dim + i);
          const double a = in.at("x")[from], b = in.at("x")[from + static_cast<std::size_t>(half)];
          out["y"][to] = a * std::cos(angle) - b * std::sin(angle);
          out["y"][to + static_cast<std::size_t>(half)] = a * std::sin(angle) + b * std::cos(angle);
        }
  };
  const auto heads_of = [=](auto view) {
    view.shape = {batch, tokens, heads, dim};
    view.strides = {tokens * width, width, dim, 1};
    return view;
  };
  op.forward = [=](Run& run) {
    run.kernels().embedding.rotary(run.exec(), heads_of(run.in("x")), map, theta, inverse, run.out("y"));
  };
  if (in_place) return op;
  op.backward = [=](Run& run) {
    run.kernels().elementwise.fill(run.exec(), 0, run.gradient("x"));
    run.kernels().embedding.rotary(run.exec(), run.cotangent("y"), map, theta, !inverse, heads_of(run.gradient("x")));
  };
  return op;
}

}  // namespace

std::vector<OpCase> embedding_cases() {
  TokenMap two = token_map(6, 20, 2, 1);
  two.first_length = 4;
  two.begin[1] = 12;
  return {embedding_case({"tokens_only", 2, 5, 19, 7, 0, 0, token_map(5, 5)}),
          embedding_case({"positions", 3, 6, 33, 11, 6, 0, token_map(6, 6)}),
          embedding_case({"one", 1, 1, 1, 1, 1, 0, token_map(1, 1)}),
          embedding_case({"dropout", 3, 6, 33, 11, 9, 0.3f, token_map(6, 9, 3, 4)}),
          embedding_case({"two_intervals", 2, 6, 70, 5, 20, 0.3f, two}),
          embedding_case({"shard", 3, 6, 33, 11, 9, 0.3f, token_map(6, 9, 3), 4, 5}),
          embedding_case({"shard_without_positions", 4, 20, 64, 90, 0, 0, token_map(20, 20), 30, 60}),
          embedding_case({"large", 4, 40, 390, 50, 40, 0.3f, token_map(40, 40)}),
          rotary_case("odd", 2, 5, 3, 10, token_map(5, 9, 2), false, false),
          rotary_case("inverse_in_place", 1, 7, 2, 64, token_map(7, 7), true, true),
          rotary_case("two_intervals", 2, 6, 1, 34, two, false, false),
          rotary_case("far_positions", 1, 3, 2, 16, token_map(3, 1 << 20, 1000000), false, false),
          rotary_case("large", 2, 130, 4, 64, token_map(130, 130), false, false)};
}

}  // namespace weft::test
