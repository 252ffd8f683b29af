#include <cmath>
#include <numbers>

#include "tests/unit/op_cases/run.hpp"

namespace weft::test {
namespace {

double gelu(double x) {
  return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::numbers::pi) * (x + 0.044715 * x * x * x)));
}

OpCase gelu_case(const std::string& name, Shape shape, double scale, bool in_place_gradient) {
  OpCase op;
  op.name = "gelu." + name;
  op.inputs = {{.name = "x", .shape = shape, .gradient = GradientMode::overwritten, .scale = scale}};
  op.outputs = {{.name = "y", .shape = shape}};
  op.oracle = [](const Values& in, Values& out) {
    for (std::size_t i = 0; i < out["y"].size(); ++i) out["y"][i] = gelu(in.at("x")[i]);
  };
  op.forward = [](Run& run) { run.kernels().elementwise.gelu(run.exec(), run.in("x"), run.out("y")); };
  op.backward = [=](Run& run) {
    if (!in_place_gradient)
      return run.kernels().elementwise.gelu_backward(run.exec(), run.in("x"), run.cotangent("y"), run.gradient("x"));
    run.kernels().elementwise.copy(run.exec(), run.cotangent("y"), run.gradient("x"));
    run.kernels().elementwise.gelu_backward(run.exec(), run.in("x"), run.gradient("x"), run.gradient("x"));
  };
  return op;
}

OpCase swiglu_case(const std::string& name, std::int64_t rows, std::int64_t cols, double scale) {
  OpCase op;
  op.name = "swiglu." + name;
  op.inputs = {{.name = "gate_up", .shape = {rows, 2 * cols}, .gradient = GradientMode::overwritten, .scale = scale}};
  op.outputs = {{.name = "y", .shape = {rows, cols}}};
  op.oracle = [=](const Values& in, Values& out) {
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < cols; ++c) {
        const double gate = in.at("gate_up")[static_cast<std::size_t>(2 * r * cols + c)];
        const double up = in.at("gate_up")[static_cast<std::size_t>((2 * r + 1) * cols + c)];
        out["y"][static_cast<std::size_t>(r * cols + c)] = gate / (1 + std::exp(-gate)) * up;
      }
  };
  op.forward = [](Run& run) { run.kernels().elementwise.swiglu(run.exec(), run.in("gate_up"), run.out("y")); };
  op.backward = [](Run& run) {
    run.kernels().elementwise.swiglu_backward(run.exec(), run.in("gate_up"), run.cotangent("y"),
                                              run.gradient("gate_up"));
  };
  return op;
}

OpCase add_case(const std::string& name, Shape shape, const std::string& in_place_of) {
  OpCase op;
  op.name = "add." + name;
  op.inputs = {{.name = "a", .shape = shape}, {.name = "b", .shape = shape}};
  op.outputs = {{.name = "y", .shape = shape, .differentiable = false, .in_place_of = in_place_of}};
  op.oracle = [](const Values& in, Values& out) {
    for (std::size_t i = 0; i < out["y"].size(); ++i) out["y"][i] = in.at("a")[i] + in.at("b")[i];
  };
  op.forward = [](Run& run) { run.kernels().elementwise.add(run.exec(), run.in("a"), run.in("b"), run.out("y")); };
  return op;
}

OpCase scaled_add_case(const std::string& name, Shape shape, Write write) {
  OpCase op;
  op.name = "scaled_add." + name;
  op.inputs = {{.name = "x", .shape = shape},
               {.name = "a", .shape = shape, .gradient = GradientMode::overwritten},
               {.name = "alpha",
                .shape = {1},
                .stored = Stored::f32,
                .gradient = write == Write::add ? GradientMode::added : GradientMode::overwritten}};
  op.outputs = {{.name = "y", .shape = shape}};
  op.oracle = [](const Values& in, Values& out) {
    for (std::size_t i = 0; i < out["y"].size(); ++i) out["y"][i] = in.at("x")[i] + in.at("alpha")[0] * in.at("a")[i];
  };
  op.forward = [](Run& run) {
    run.kernels().elementwise.scaled_add(run.exec(), run.in("x"), run.in("a"), run.in("alpha"), run.out("y"));
  };
  op.backward = [=](Run& run) {
    run.kernels().elementwise.scaled_add_backward(run.exec(), run.in("a"), run.in("alpha"), run.cotangent("y"), write,
                                                  run.gradient("a"), run.gradient("alpha"));
  };
  return op;
}

OpCase copy_case(const std::string& name, Shape shape, Stored from, Stored to) {
  OpCase op;
  op.name = "copy." + name;
  op.inputs = {{.name = "x", .shape = shape, .stored = from}};
  op.outputs = {{.name = "y", .shape = shape, .stored = to, .differentiable = false}};
  op.oracle = [](const Values& in, Values& out) { out["y"] = in.at("x"); };
  op.forward = [](Run& run) { run.kernels().elementwise.copy(run.exec(), run.in("x"), run.out("y")); };
  return op;
}

template <class AnyView>
AnyView permuted(const AnyView& view, const std::vector<int>& order) {
  AnyView result = view;
  for (std::size_t i = 0; i < order.size(); ++i) {
    const int dim = static_cast<int>(i);
    result.shape[dim] = view.shape[order[i]];
    result.strides[dim] = view.strides[order[i]];
  }
  return result;
}

// y[a, b, c] = x[b, a, c], or with the last two dims exchanged: strided reads, then strided writes.
OpCase strided_copy_case(const std::string& name, std::vector<int> order, bool permute_output) {
  const std::int64_t sizes[3] = {5, 6, 35};
  OpCase op;
  op.name = "copy." + name;
  const Shape shape{sizes[0], sizes[1], sizes[2]};
  const auto at = [&](int dim) { return sizes[order[static_cast<std::size_t>(dim)]]; };
  const Shape turned{at(0), at(1), at(2)};
  op.inputs = {{.name = "x", .shape = permute_output ? turned : shape}};
  op.outputs = {
      {.name = "y", .shape = permute_output ? shape : turned, .stored = Stored::f32, .differentiable = false}};
  op.oracle = [=](const Values& in, Values& out) {
    std::int64_t i[3];
    for (i[0] = 0; i[0] < shape[0]; ++i[0])
      for (i[1] = 0; i[1] < shape[1]; ++i[1])
        for (i[2] = 0; i[2] < shape[2]; ++i[2]) {
          const auto straight = static_cast<std::size_t>((i[0] * shape[1] + i[1]) * shape[2] + i[2]);
          const auto moved =
              static_cast<std::size_t>((i[order[0]] * turned[1] + i[order[1]]) * turned[2] + i[order[2]]);
          if (permute_output)
            out["y"][straight] = in.at("x")[moved];
          else
            out["y"][moved] = in.at("x")[straight];
        }
  };
  op.forward = [=](Run& run) {
    if (permute_output)
      run.kernels().elementwise.copy(run.exec(), run.in("x"), permuted(run.out("y"), order));
    else
      run.kernels().elementwise.copy(run.exec(), permuted(run.in("x"), order), run.out("y"));
  };
  return op;
}

// Columns [begin, begin + wide) of rows, seen as heads: what a cache of keys takes from a fused projection.
OpCase sliced_copy_case() {
  const std::int64_t rows = 6, row = 50, begin = 7, heads = 3, dim = 11;
  OpCase op;
  op.name = "copy.columns_of_a_projection";
  op.inputs = {{.name = "x", .shape = {2, rows / 2, row}}};
  op.outputs = {{.name = "y", .shape = {2, rows / 2, heads, dim}, .stored = Stored::f32, .differentiable = false}};
  op.oracle = [=](const Values& in, Values& out) {
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = 0; c < heads * dim; ++c)
        out["y"][static_cast<std::size_t>(r * heads * dim + c)] =
            in.at("x")[static_cast<std::size_t>(r * row + begin + c)];
  };
  op.forward = [=](Run& run) {
    View x = run.in("x");
    x.data = static_cast<const char*>(x.data) + static_cast<std::size_t>(begin) * size_of(x.dtype);
    x.shape = {2, rows / 2, heads, dim};
    x.strides = {rows / 2 * row, row, dim, 1};
    run.kernels().elementwise.copy(run.exec(), x, run.out("y"));
  };
  return op;
}

OpCase fill_case(std::int64_t count, Stored stored = Stored::activation) {
  OpCase op;
  op.name = "fill." + std::to_string(count) + (stored == Stored::f64 ? "_f64" : "");
  op.outputs = {{.name = "y", .shape = {count}, .stored = stored, .differentiable = false}};
  op.oracle = [](const Values&, Values& out) { out["y"].assign(out["y"].size(), 0.75); };
  op.forward = [](Run& run) { run.kernels().elementwise.fill(run.exec(), 0.75f, run.out("y")); };
  return op;
}

// The columns `skip` to `skip` + cols of wider rows, added to the middle columns of a wider sum.
OpCase accumulate_case(const std::string& name, std::int64_t rows, std::int64_t cols, std::int64_t skip) {
  const std::int64_t width = cols + 2 * skip;
  OpCase op;
  op.name = "accumulate." + name;
  op.inputs = {{.name = "x", .shape = {rows, width}}, {.name = "sum", .shape = {rows, width}, .stored = Stored::f32}};
  op.outputs = {
      {.name = "y", .shape = {rows, width}, .stored = Stored::f32, .differentiable = false, .in_place_of = "sum"}};
  op.oracle = [=](const Values& in, Values& out) {
    out["y"] = in.at("sum");
    for (std::int64_t r = 0; r < rows; ++r)
      for (std::int64_t c = skip; c < skip + cols; ++c)
        out["y"][static_cast<std::size_t>(r * width + c)] += in.at("x")[static_cast<std::size_t>(r * width + c)];
  };
  op.forward = [=](Run& run) {
    const auto middle = [&](auto view) {
      using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<decltype(view.data)>>, const char, char>;
      view.data = static_cast<Byte*>(view.data) + skip * static_cast<std::int64_t>(size_of(view.dtype));
      view.shape = {rows, cols};
      return view;
    };
    run.kernels().elementwise.accumulate(run.exec(), middle(run.in("x")), middle(run.out("y")));
  };
  return op;
}

OpCase scale_case(const std::string& name, std::int64_t count, Stored stored) {
  OpCase op;
  op.name = "scale." + name;
  op.inputs = {{.name = "x", .shape = {count}, .stored = stored}};
  op.outputs = {{.name = "y", .shape = {count}, .stored = stored, .differentiable = false, .in_place_of = "x"}};
  op.oracle = [](const Values& in, Values& out) {
    for (std::size_t i = 0; i < out["y"].size(); ++i) out["y"][i] = in.at("x")[i] * 0.375;
  };
  op.forward = [](Run& run) { run.kernels().elementwise.scale(run.exec(), 0.375f, run.out("y")); };
  return op;
}

OpCase dot_case(const std::string& name, std::int64_t count, bool with_b, Write write) {
  OpCase op;
  op.name = "dot." + name;
  op.f32_only = true;
  op.f32_tolerance = 1e-12;
  op.inputs = {{.name = "a", .shape = {count}, .stored = Stored::f32, .offset = 0.1},
               {.name = "b", .shape = {count}, .stored = Stored::f32, .offset = 0.1},
               {.name = "before", .shape = {1}, .stored = Stored::f64, .values = {2.5}}};
  op.outputs = {{.name = "sum", .shape = {1}, .stored = Stored::f64, .differentiable = false, .in_place_of = "before"}};
  op.oracle = [=](const Values& in, Values& out) {
    double total = write == Write::add ? in.at("before")[0] : 0;
    for (std::size_t i = 0; i < in.at("a").size(); ++i) total += in.at("a")[i] * (with_b ? in.at("b")[i] : 1);
    out["sum"][0] = total;
  };
  op.forward = [=](Run& run) {
    run.kernels().elementwise.dot(run.exec(), run.in("a"), with_b ? run.in("b") : View{}, write, run.out("sum"));
  };
  return op;
}

}  // namespace

std::vector<OpCase> elementwise_cases() {
  return {gelu_case("odd", {7, 19}, 1.5, false),
          gelu_case("one", {1}, 1, false),
          gelu_case("in_place_gradient", {3, 70}, 3, true),
          gelu_case("wide_range", {50}, 30, false),
          gelu_case("large", {130, 300}, 2, false),
          swiglu_case("odd", 5, 21, 1.5),
          swiglu_case("one", 1, 1, 1),
          swiglu_case("wide_range", 2, 20, 40),
          swiglu_case("large", 120, 345, 2),
          add_case("odd", {3, 21}, ""),
          add_case("into_a", {1001}, "a"),
          add_case("into_b", {64}, "b"),
          add_case("large", {100, 999}, "a"),
          scaled_add_case("odd", {3, 21}, Write::overwrite),
          scaled_add_case("one_add_gradient", {1}, Write::add),
          scaled_add_case("large", {130, 301}, Write::add),
          copy_case("widen", {3, 37}, Stored::activation, Stored::f32),
          copy_case("narrow", {3, 37}, Stored::f32, Stored::activation),
          copy_case("same", {201, 333}, Stored::activation, Stored::activation),
          strided_copy_case("swap_leading_dims", {1, 0, 2}, false),
          strided_copy_case("swap_trailing_dims", {0, 2, 1}, false),
          strided_copy_case("strided_output", {1, 0, 2}, true),
          strided_copy_case("strided_output_columns", {2, 1, 0}, true),
          sliced_copy_case(),
          accumulate_case("odd", 3, 19, 0),
          accumulate_case("columns", 5, 17, 3),
          accumulate_case("packed_columns", 6, 64, 8),
          accumulate_case("large", 130, 300, 0),
          fill_case(1),
          fill_case(37),
          fill_case(100000),
          fill_case(3, Stored::f64),
          scale_case("odd", 37, Stored::activation),
          scale_case("large", 90001, Stored::activation),
          scale_case("f64", 3, Stored::f64),
          dot_case("odd", 77, true, Write::overwrite),
          dot_case("add", 1000, true, Write::add),
          dot_case("sum", 65, false, Write::overwrite),
          dot_case("large", 100001, true, Write::add)};
}

}  // namespace weft::test
