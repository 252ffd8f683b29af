#include <algorithm>
#include <span>

#include "core/cpu/parallel.hpp"
#include "core/cpu/vector.hpp"

namespace weft::cpu {
namespace {

constexpr std::int64_t line = 64;  // elements: whole cache lines for each thread

template <const VecKernels& vec>
void gelu(ExecContext& exec, View x, MutView y) {
  check_given(x, x.shape, x.dtype, "x");
  check_given(y, x.shape, x.dtype, "y");
  const Elem elem = elem_of(x);
  for_ranges(threads_for(exec, x.numel(), static_cast<std::int64_t>(4 * x.bytes())), x.numel(), line,
             [&](std::int64_t begin, std::int64_t end, int) { vec.gelu(elem, x.data, y.data, begin, end); });
}

template <const VecKernels& vec>
void gelu_backward(ExecContext& exec, View x, View dy, MutView dx) {
  check_given(x, x.shape, x.dtype, "x");
  check_given(dy, x.shape, x.dtype, "dy");
  check_given(dx, x.shape, x.dtype, "dx");
  const Elem elem = elem_of(x);
  for_ranges(threads_for(exec, x.numel(), static_cast<std::int64_t>(4 * x.bytes())), x.numel(), line,
             [&](std::int64_t begin, std::int64_t end, int) {
               vec.gelu_backward(elem, x.data, dy.data, dx.data, begin, end);
             });
}

template <const VecKernels& vec>
void swiglu(ExecContext& exec, View gate_up, MutView y) {
  const std::int64_t rows = y.rows(), cols = y.cols();
  check_given(y, y.shape, y.dtype, "y");
  check_given(gate_up, {rows, 2 * cols}, y.dtype, "gate_up");
  const Elem elem = elem_of(y);
  for_ranges(
      threads_for(exec, rows, static_cast<std::int64_t>(4 * y.bytes())), rows, 1,
      [&](std::int64_t begin, std::int64_t end, int) { vec.swiglu(elem, cols, gate_up.data, y.data, begin, end); });
}

template <const VecKernels& vec>
void swiglu_backward(ExecContext& exec, View gate_up, View dy, MutView dgate_up) {
  const std::int64_t rows = dy.rows(), cols = dy.cols();
  check_given(dy, dy.shape, dy.dtype, "dy");
  check_given(gate_up, {rows, 2 * cols}, dy.dtype, "gate_up");
  check_given(dgate_up, {rows, 2 * cols}, dy.dtype, "dgate_up");
  const Elem elem = elem_of(dy);
  for_ranges(threads_for(exec, rows, static_cast<std::int64_t>(5 * dy.bytes())), rows, 1,
             [&](std::int64_t begin, std::int64_t end, int) {
               vec.swiglu_backward(elem, cols, gate_up.data, dy.data, dgate_up.data, begin, end);
             });
}

template <const VecKernels& vec>
void add(ExecContext& exec, View a, View b, MutView y) {
  check_given(a, a.shape, a.dtype, "a");
  check_given(b, a.shape, a.dtype, "b");
  check_given(y, a.shape, a.dtype, "y");
  const Elem elem = elem_of(a);
  for_ranges(threads_for(exec, a.numel(), static_cast<std::int64_t>(3 * a.bytes())), a.numel(), line,
             [&](std::int64_t begin, std::int64_t end, int) { vec.add(elem, a.data, b.data, y.data, begin, end); });
}

template <const VecKernels& vec>
void scaled_add(ExecContext& exec, View x, View a, View alpha, MutView y) {
  check_given(x, x.shape, x.dtype, "x");
  check_given(a, x.shape, x.dtype, "a");
  check_given(y, x.shape, x.dtype, "y");
  check_given(alpha, {1}, DType::f32, "alpha");
  const Elem elem = elem_of(x);
  for_ranges(threads_for(exec, x.numel(), static_cast<std::int64_t>(3 * x.bytes())), x.numel(), line,
             [&](std::int64_t begin, std::int64_t end, int) {
               vec.scaled_add(elem, x.data, a.data, *floats(alpha), y.data, begin, end);
             });
}

// Chunks depend on the count alone, so the threads do not change the result.
template <const VecKernels& vec>
void scaled_add_backward(ExecContext& exec, View a, View alpha, View dy, Write write, MutView da, MutView dalpha) {
  check_given(a, a.shape, a.dtype, "a");
  check_given(dy, a.shape, a.dtype, "dy");
  check_given(da, a.shape, a.dtype, "da");
  check_given(alpha, {1}, DType::f32, "alpha");
  check_given(dalpha, {1}, DType::f32, "dalpha");
  constexpr std::int64_t chunk = 1 << 14;
  const std::int64_t count = a.numel(), chunks = (count + chunk - 1) / chunk;
  const Elem elem = elem_of(a);
  auto* parts = static_cast<double*>(exec.scratch(static_cast<std::size_t>(chunks) * sizeof(double) + 1));
  const int threads = threads_for(exec, chunks, static_cast<std::int64_t>(3 * a.bytes()));
  for_ranges(threads, chunks, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i)
      parts[i] = vec.scaled_add_backward(elem, a.data, *floats(alpha), dy.data, da.data, i * chunk,
                                         std::min(count, (i + 1) * chunk));
  });
  double total = write == Write::add ? static_cast<double>(*floats(dalpha)) : 0;
  for (std::int64_t i = 0; i < chunks; ++i) total += parts[i];
  *floats(dalpha) = static_cast<float>(total);
}

// Joins each dim of both views to the next where both walk through the two as through one.
void join_dims(View& x, MutView& y) {
  for (int dim = x.shape.rank() - 2; dim >= 0; --dim) {
    const std::int64_t size = x.shape[dim + 1];
    if (x.strides[dim] != size * x.strides[dim + 1] || y.strides[dim] != size * y.strides[dim + 1]) continue;
    const auto without = [dim](Shape shape, std::int64_t at_dim) {
      shape[dim] = at_dim;
      std::int64_t kept[Shape::max_rank];
      int count = 0;
      for (int d = 0; d < shape.rank(); ++d)
        if (d != dim + 1) kept[count++] = shape[d];
      return Shape(std::span<const std::int64_t>(kept, static_cast<std::size_t>(count)));
    };
    const Shape shape = without(x.shape, x.shape[dim] * size);
    x.strides = without(x.strides, x.strides[dim + 1]);
    y.strides = without(y.strides, y.strides[dim + 1]);
    x.shape = y.shape = shape;
  }
}

// The offset, in elements, of the first of `cols` elements of each row; rows counted over all dims but the last.
std::int64_t row_offset(const View& view, std::int64_t row) {
  std::int64_t offset = 0;
  for (int dim = view.shape.rank() - 2; dim >= 0; --dim) {
    offset += row % view.shape[dim] * view.strides[dim];
    row /= view.shape[dim];
  }
  return offset;
}

// body(x, y, n) for runs of n elements that are neighbours in both views, shared out over the threads.
template <class Body>
void for_runs(ExecContext& exec, View x, MutView y, Body&& body) {
  WEFT_CHECK(x.shape == y.shape, "x is {}, y is {}", to_string(x.shape), to_string(y.shape));
  const std::int64_t count = x.numel();
  if (count == 0) return;
  const auto source = [&](std::int64_t i) {
    return static_cast<const char*>(x.data) + i * static_cast<std::int64_t>(size_of(x.dtype));
  };
  const auto target = [&](std::int64_t i) {
    return static_cast<char*>(y.data) + i * static_cast<std::int64_t>(size_of(y.dtype));
  };
  const auto bytes = static_cast<std::int64_t>(x.bytes() + y.bytes());
  if (x.contiguous() && y.contiguous())
    return for_ranges(threads_for(exec, count, bytes), count, line, [&](std::int64_t begin, std::int64_t end, int) {
      body(source(begin), target(begin), end - begin);
    });
  join_dims(x, y);
  const std::int64_t cols = x.cols(), x_step = x.shape.rank() ? x.strides[-1] : 1;
  const std::int64_t y_step = y.shape.rank() ? y.strides[-1] : 1;
  for_ranges(threads_for(exec, count / cols, bytes), count / cols, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t at = row_offset(x, row), y_at = row_offset(y, row);
      if (x_step == 1 && y_step == 1) {
        body(source(at), target(y_at), cols);
        continue;
      }
      for (std::int64_t i = 0; i < cols; ++i) body(source(at + i * x_step), target(y_at + i * y_step), 1);
    }
  });
}

template <const VecKernels& vec>
void copy(ExecContext& exec, View x, MutView y) {
  const Elem from = elem_of(x), to = elem_of(y);
  for_runs(exec, x, y,
           [&](const void* source, void* target, std::int64_t count) { vec.convert(from, source, to, target, count); });
}

template <const VecKernels& vec>
void accumulate(ExecContext& exec, View x, MutView y) {
  const Elem from = elem_of(x);
  WEFT_CHECK(y.dtype == DType::f32, "sums are {}, expected f32", name_of(y.dtype));
  for_runs(exec, x, y, [&](const void* source, void* target, std::int64_t count) {
    vec.accumulate(from, source, static_cast<float*>(target), count);
  });
}

template <const VecKernels& vec>
void fill(ExecContext& exec, float value, MutView y) {
  check_given(y, y.shape, y.dtype, "y");
  if (y.dtype == DType::f64) {
    std::fill_n(y.as<double>(), y.numel(), static_cast<double>(value));
    return;
  }
  const Elem elem = elem_of(y);
  for_ranges(threads_for(exec, y.numel(), static_cast<std::int64_t>(y.bytes())), y.numel(), line,
             [&](std::int64_t begin, std::int64_t end, int) { vec.fill(elem, value, y.data, begin, end); });
}

template <const VecKernels& vec>
void scale(ExecContext& exec, float factor, MutView y) {
  check_given(y, y.shape, y.dtype, "y");
  if (y.dtype == DType::f64) {
    for (double& each : std::span(y.as<double>(), static_cast<std::size_t>(y.numel()))) each *= factor;
    return;
  }
  const Elem elem = elem_of(y);
  for_ranges(threads_for(exec, y.numel(), static_cast<std::int64_t>(2 * y.bytes())), y.numel(), line,
             [&](std::int64_t begin, std::int64_t end, int) { vec.scale(elem, factor, y.data, begin, end); });
}

// Chunks depend on the count alone, so the threads do not change the result.
template <const VecKernels& vec>
void dot(ExecContext& exec, View a, View b, Write write, MutView sum) {
  check_given(a, a.shape, DType::f32, "a");
  check_like(b, a.shape, DType::f32, "b");
  auto* result = sum.as<double>();
  const std::int64_t count = a.numel();
  constexpr std::int64_t least = 1 << 14, most_chunks = 4096;
  const std::int64_t chunk = std::max(least, ((count + most_chunks - 1) / most_chunks + 63) / 64 * 64);
  const std::int64_t chunks = (count + chunk - 1) / chunk;
  auto* parts = static_cast<double*>(exec.scratch(static_cast<std::size_t>(chunks) * sizeof(double) + 1));
  const int threads = threads_for(exec, chunks, static_cast<std::int64_t>(a.bytes()));
  for_ranges(threads, chunks, 1, [&](std::int64_t begin, std::int64_t end, int) {
    for (std::int64_t i = begin; i < end; ++i)
      parts[i] = vec.dot(floats(a), floats(b), i * chunk, std::min(count, (i + 1) * chunk));
  });
  double total = write == Write::add ? *result : 0;
  for (std::int64_t i = 0; i < chunks; ++i) total += parts[i];
  *result = total;
}

}  // namespace

void bind_elementwise(KernelTable& table, Isa isa) {
  for_isa(isa, [&]<const VecKernels & vec>() {
    table.elementwise.scale.bind(scale<vec>);
    table.elementwise.gelu.bind(gelu<vec>);
    table.elementwise.gelu_backward.bind(gelu_backward<vec>);
    table.elementwise.swiglu.bind(swiglu<vec>);
    table.elementwise.swiglu_backward.bind(swiglu_backward<vec>);
    table.elementwise.add.bind(add<vec>);
    table.elementwise.scaled_add.bind(scaled_add<vec>);
    table.elementwise.scaled_add_backward.bind(scaled_add_backward<vec>);
    table.elementwise.copy.bind(copy<vec>);
    table.elementwise.accumulate.bind(accumulate<vec>);
    table.elementwise.fill.bind(fill<vec>);
    table.elementwise.dot.bind(dot<vec>);
  });
}

}  // namespace weft::cpu
