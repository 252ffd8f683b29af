#include "tests/unit/op_cases/run.hpp"

namespace weft::test {
namespace {

OpCase dropout_case(const std::string& name, std::int64_t rows, std::int64_t cols, float p, TokenMap map,
                    std::int64_t cols_global, std::int64_t col_begin) {
  OpCase op;
  op.name = "dropout." + name;
  const Shape shape{rows, cols};
  const DropoutSpec spec = dropout_spec(p, map, cols_global, col_begin);
  op.inputs = {{.name = "x", .shape = shape, .gradient = GradientMode::overwritten}};
  op.outputs = {{.name = "y", .shape = shape}};
  op.oracle = [=](const Values& in, Values& out) {
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < cols; ++c) {
        const auto i = static_cast<std::size_t>(r * cols + c);
        out["y"][i] = in.at("x")[i] * dropout_factor(p, map.global_row(r) * cols_global + col_begin + c);
      }
  };
  op.forward = [=](Run& run) {
    run.kernels().dropout.apply(run.exec(), run.in("x"), run.with_key(spec), run.out("y"));
  };
  op.backward = [=](Run& run) {
    run.kernels().dropout.apply(run.exec(), run.cotangent("y"), run.with_key(spec), run.gradient("x"));
  };
  return op;
}

}  // namespace

std::vector<OpCase> dropout_cases() {
  TokenMap two = token_map(6, 20, 2, 1);  // tokens 2 to 5 and 12, 13 of each sequence
  two.first_length = 4;
  two.begin[1] = 12;
  TokenMap shared = token_map(7, 9, 1);  // the second two of every six rows
  shared.share = {2, 2, 6};
  TokenMap far = token_map(4, std::int64_t{1} << 33, std::int64_t{1} << 32, 3);  // element indices beyond 32 bits
  return {dropout_case("plain", 6, 33, 0.3f, token_map(6, 6), 33, 0),
          dropout_case("one_element", 1, 1, 0.3f, token_map(1, 1), 1, 0),
          dropout_case("none", 5, 21, 0, token_map(5, 5), 21, 0),
          dropout_case("columns_of_a_shard", 5, 12, 0.3f, token_map(5, 9, 4), 50, 13),
          dropout_case("two_intervals", 12, 20, 0.3f, two, 20, 0),
          dropout_case("shared_rows", 9, 21, 0.3f, shared, 21, 0),
          dropout_case("far_positions", 8, 40, 0.3f, far, 40, 0),
          dropout_case("large", 96, 700, 0.3f, token_map(32, 32), 700, 0)};
}

}  // namespace weft::test
