// Activations, sums, conversions, fills; see core/kernels/elementwise.hpp.
#include <algorithm>
#include <type_traits>

#include "core/cuda/device/activation.hpp"
#include "core/cuda/device/numeric.hpp"
#include "core/cuda/device/reduce.hpp"
#include "core/cuda/device/rows.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/launch.hpp"
#include "core/kernels/check.hpp"

namespace weft::cuda {
namespace {

/// y[i] = op(a[i], b[i]); without b, op(a[i], 0). The first `packs` packs whole, the rest one by one.
template <class T, class Op>
struct Map {
  static constexpr int threads = 256;
  static constexpr int width = pack_width<T>;
  const T* a;
  const T* b;
  T* y;
  std::int64_t count, packs;
  Op op;

  WEFT_DEVICE void operator()(const Block& block) const {
    for_grid(block, packs, [&](std::int64_t i) {
      const auto left = load_pack<width>(a + i * width);
      Pack<T, width> right{}, out;
      if (b) right = load_pack<width>(b + i * width);
      for (int k = 0; k < width; ++k) out.at[k] = from_float<T>(op(to_float(left.at[k]), to_float(right.at[k])));
      store_pack(y + i * width, out);
    });
    for_grid(block, count - packs * width, [&](std::int64_t i) {
      const std::int64_t at = packs * width + i;
      y[at] = from_float<T>(op(to_float(a[at]), b ? to_float(b[at]) : 0.0f));
    });
  }
};

template <class T>
bool packs_start_at(const T* data) {
  return can_pack<pack_width<T>>(data, 0, 0);
}

template <class Op>
void map(ExecContext& exec, View a, View b, MutView y, Op op) {
  const std::int64_t count = y.numel();
  if (count == 0) return;
  dispatch_float(y.dtype, [&]<class T>() {
    constexpr int width = pack_width<T>;
    const T* from = a.as<T>();
    const T* with = b ? b.as<T>() : nullptr;
    T* to = y.as<T>();
    const bool aligned = packs_start_at(from) && packs_start_at(with) && packs_start_at(to);
    const std::int64_t packs = aligned ? count / width : 0;
    const Map<T, Op> kernel{from, with, to, count, packs, op};
    launch(exec, blocks_for<Map<T, Op>>(std::max(packs, count - packs * width)), kernel);
  });
}

struct Gelu {
  WEFT_DEVICE float operator()(float x, float) const { return gelu_of(x); }
};
struct GeluBackward {
  WEFT_DEVICE float operator()(float x, float dy) const { return dy * gelu_slope(x); }
};
struct Add {
  WEFT_DEVICE float operator()(float a, float b) const { return a + b; }
};
struct Scale {
  float factor;
  WEFT_DEVICE float operator()(float x, float) const { return x * factor; }
};

void gelu(ExecContext& exec, View x, MutView y) {
  check_given(x, x.shape, x.dtype, "x");
  check_given(y, x.shape, x.dtype, "y");
  map(exec, x, {}, y, Gelu{});
}

void gelu_backward(ExecContext& exec, View x, View dy, MutView dx) {
  check_given(x, x.shape, x.dtype, "x");
  check_given(dy, x.shape, x.dtype, "dy");
  check_given(dx, x.shape, x.dtype, "dx");
  map(exec, x, dy, dx, GeluBackward{});
}

void add(ExecContext& exec, View a, View b, MutView y) {
  check_given(a, a.shape, a.dtype, "a");
  check_given(b, a.shape, a.dtype, "b");
  check_given(y, a.shape, a.dtype, "y");
  map(exec, a, b, y, Add{});
}

template <class T, int Width>
struct Swiglu {
  static constexpr int threads = 256;
  const T* gate_up;
  T* y;
  std::int64_t rows, cols;

  WEFT_DEVICE void operator()(const Block& block) const {
    for_row_packs<Width>(block, rows, cols, [&](std::int64_t row) {
      const T* gate = gate_up + 2 * row * cols;
      const T* up = gate + cols;
      T* to = y + row * cols;
      return [gate, up, to](std::int64_t col) {
        const auto g = load_pack<Width>(gate + col), u = load_pack<Width>(up + col);
        Pack<T, Width> out;
        for (int k = 0; k < Width; ++k) {
          const float x = to_float(g.at[k]);
          out.at[k] = from_float<T>(x * sigmoid(x) * to_float(u.at[k]));
        }
        store_pack(to + col, out);
      };
    });
  }
};

template <class T, int Width>
struct SwigluBackward {
  static constexpr int threads = 256;
  const T* gate_up;
  const T* dy;
  T* dgate_up;
  std::int64_t rows, cols;

  WEFT_DEVICE void operator()(const Block& block) const {
    for_row_packs<Width>(block, rows, cols, [&](std::int64_t row) {
      const T* gate = gate_up + 2 * row * cols;
      const T* from = dy + row * cols;
      T* dgate = dgate_up + 2 * row * cols;
      return [cols = cols, gate, from, dgate](std::int64_t col) {
        const auto g = load_pack<Width>(gate + col), u = load_pack<Width>(gate + cols + col);
        const auto d = load_pack<Width>(from + col);
        Pack<T, Width> dg, du;
        for (int k = 0; k < Width; ++k) {
          const float x = to_float(g.at[k]), slope = to_float(d.at[k]);
          const float s = sigmoid(x), silu = x * s;
          dg.at[k] = from_float<T>(slope * to_float(u.at[k]) * (s + silu * (1.0f - s)));
          du.at[k] = from_float<T>(slope * silu);
        }
        store_pack(dgate + col, dg);
        store_pack(dgate + cols + col, du);
      };
    });
  }
};

void swiglu(ExecContext& exec, View gate_up, MutView y) {
  const std::int64_t rows = y.rows(), cols = y.cols();
  check_given(y, y.shape, y.dtype, "y");
  check_given(gate_up, {rows, 2 * cols}, y.dtype, "gate_up");
  if (rows == 0) return;
  dispatch_float(y.dtype, [&]<class T>() {
    const auto start = [&]<int Width>() {
      const Swiglu<T, Width> kernel{gate_up.as<T>(), y.as<T>(), rows, cols};
      launch(exec, row_blocks<Swiglu<T, Width>, Width>(rows, cols), kernel);
    };
    constexpr int width = pack_width<T>;
    const bool packed = can_pack<width>(gate_up.as<T>(), cols, cols) && can_pack<width>(y.as<T>(), cols, cols);
    packed ? start.template operator()<width>() : start.template operator()<1>();
  });
}

void swiglu_backward(ExecContext& exec, View gate_up, View dy, MutView dgate_up) {
  const std::int64_t rows = dy.rows(), cols = dy.cols();
  check_given(dy, dy.shape, dy.dtype, "dy");
  check_given(gate_up, {rows, 2 * cols}, dy.dtype, "gate_up");
  check_given(dgate_up, {rows, 2 * cols}, dy.dtype, "dgate_up");
  if (rows == 0) return;
  dispatch_float(dy.dtype, [&]<class T>() {
    const auto start = [&]<int Width>() {
      const SwigluBackward<T, Width> kernel{gate_up.as<T>(), dy.as<T>(), dgate_up.as<T>(), rows, cols};
      launch(exec, row_blocks<SwigluBackward<T, Width>, Width>(rows, cols), kernel);
    };
    constexpr int width = pack_width<T>;
    const bool packed = can_pack<width>(gate_up.as<T>(), cols, cols) && can_pack<width>(dy.as<T>(), cols, cols) &&
                        can_pack<width>(dgate_up.as<T>(), cols, cols);
    packed ? start.template operator()<width>() : start.template operator()<1>();
  });
}

/// How two views of one shape are walked, the innermost dim first; strides in elements.
struct Walk {
  int rank = 0;
  std::int64_t size[Shape::max_rank] = {}, x[Shape::max_rank] = {}, y[Shape::max_rank] = {};
};

// Dims that both views walk through as through one are joined.
Walk walk_of(const View& x, const MutView& y) {
  Walk walk;
  for (int dim = x.shape.rank() - 1; dim >= 0; --dim) {
    if (x.shape[dim] == 1) continue;
    const int in = walk.rank - 1;
    if (in >= 0 && x.strides[dim] == walk.size[in] * walk.x[in] && y.strides[dim] == walk.size[in] * walk.y[in]) {
      walk.size[in] *= x.shape[dim];
      continue;
    }
    walk.size[walk.rank] = x.shape[dim];
    walk.x[walk.rank] = x.strides[dim];
    walk.y[walk.rank] = y.strides[dim];
    ++walk.rank;
  }
  if (walk.rank == 0) walk = {1, {1}, {1}, {1}};
  return walk;
}

template <class From, class To>
WEFT_DEVICE To converted(From value) {
  if constexpr (std::is_same_v<From, To>)
    return value;
  else
    return from_float<To>(to_float(value));
}

/// y = x, or y += x.
template <class From, class To, int Width, Write write>
struct Copy {
  static constexpr int threads = 256;
  const From* x;
  To* y;
  std::int64_t count;  // packs
  Walk walk;           // the innermost dim in packs

  WEFT_DEVICE void operator()(const Block& block) const {
    for_grid(block, count, [&](std::int64_t i) {
      std::int64_t from = 0, to = 0;
      for (int dim = 0; dim + 1 < walk.rank; ++dim) {
        const std::int64_t outer = i / walk.size[dim], at = i - outer * walk.size[dim];
        from += at * walk.x[dim];
        to += at * walk.y[dim];
        i = outer;
      }
      from += i * walk.x[walk.rank - 1];
      to += i * walk.y[walk.rank - 1];
      const auto pack = load_pack<Width>(x + from);
      Pack<To, Width> out;
      if constexpr (write == Write::overwrite) {
        for (int k = 0; k < Width; ++k) out.at[k] = converted<From, To>(pack.at[k]);
      } else {
        out = load_pack<Width>(y + to);
        for (int k = 0; k < Width; ++k) out.at[k] += to_float(pack.at[k]);
      }
      store_pack(y + to, out);
    });
  }
};

template <Write write, int Width, class From, class To>
void copy_packs(ExecContext& exec, const From* x, To* y, Walk walk) {
  std::int64_t count = 1;
  if constexpr (Width > 1) {
    walk.size[0] /= Width;
    walk.x[0] = walk.y[0] = Width;
  }
  for (int dim = 0; dim < walk.rank; ++dim) count *= walk.size[dim];
  using Kernel = Copy<From, To, Width, write>;
  launch(exec, blocks_for<Kernel>(count), Kernel{x, y, count, walk});
}

template <Write write, class From, class To>
void copy_elements(ExecContext& exec, const From* x, To* y, Walk walk) {
  constexpr int width = std::max(pack_width<From>, pack_width<To>);
  bool packed = walk.x[0] == 1 && walk.y[0] == 1;
  for (int dim = 1; dim < walk.rank; ++dim) packed = packed && walk.x[dim] % width == 0 && walk.y[dim] % width == 0;
  packed = packed && can_pack<width>(x, 0, 0) && can_pack<width>(y, 0, 0);
  const std::int64_t whole = walk.size[0] / width * width;
  if (!packed || (walk.rank > 1 && whole != walk.size[0])) return copy_packs<write, 1>(exec, x, y, walk);
  const Walk rest{1, {walk.size[0] - whole}, {1}, {1}};
  walk.size[0] = whole;
  copy_packs<write, width>(exec, x, y, walk);
  copy_packs<write, 1>(exec, x + whole, y + whole, rest);
}

void copy(ExecContext& exec, View x, MutView y) {
  WEFT_CHECK(x.shape == y.shape, "x is {}, y is {}", to_string(x.shape), to_string(y.shape));
  if (x.numel() == 0) return;
  const Walk walk = walk_of(x, y);
  dispatch_float(x.dtype, [&]<class From>() {
    dispatch_float(y.dtype, [&]<class To>() { copy_elements<Write::overwrite>(exec, x.as<From>(), y.as<To>(), walk); });
  });
}

void accumulate(ExecContext& exec, View x, MutView y) {
  WEFT_CHECK(x.shape == y.shape, "x is {}, y is {}", to_string(x.shape), to_string(y.shape));
  if (x.numel() == 0) return;
  const Walk walk = walk_of(x, y);
  dispatch_float(x.dtype, [&]<class From>() { copy_elements<Write::add>(exec, x.as<From>(), y.as<float>(), walk); });
}

template <class T>
struct Fill {
  static constexpr int threads = 256;
  static constexpr int width = pack_width<T>;
  T value;
  T* y;
  std::int64_t count, packs;

  WEFT_DEVICE void operator()(const Block& block) const {
    Pack<T, width> pack;
    for (int k = 0; k < width; ++k) pack.at[k] = value;
    for_grid(block, packs, [&](std::int64_t i) { store_pack(y + i * width, pack); });
    for_grid(block, count - packs * width, [&](std::int64_t i) { y[packs * width + i] = value; });
  }
};

void fill(ExecContext& exec, float value, MutView y) {
  check_given(y, y.shape, y.dtype, "y");
  const std::int64_t count = y.numel();
  if (count == 0) return;
  const auto start = [&]<class T>() {
    constexpr int width = pack_width<T>;
    const std::int64_t packs = packs_start_at(y.as<T>()) ? count / width : 0;
    const Fill<T> kernel{T(value), y.as<T>(), count, packs};
    launch(exec, blocks_for<Fill<T>>(std::max(packs, count - packs * width)), kernel);
  };
  y.dtype == DType::f64 ? start.template operator()<double>() : dispatch_float(y.dtype, start);
}

struct ScaleDoubles {
  static constexpr int threads = 256;
  double factor;
  double* y;
  std::int64_t count;

  WEFT_DEVICE void operator()(const Block& block) const {
    for_grid(block, count, [&](std::int64_t i) { y[i] *= factor; });
  }
};

void scale(ExecContext& exec, float factor, MutView y) {
  check_given(y, y.shape, y.dtype, "y");
  if (y.dtype != DType::f64) return map(exec, y, {}, y, Scale{factor});
  const ScaleDoubles kernel{static_cast<double>(factor), y.as<double>(), y.numel()};
  launch(exec, blocks_for<ScaleDoubles>(kernel.count), kernel);
}

constexpr std::int64_t most_dot_parts = 1024;

/// parts[block] = this block's share of Σ a·b; without b, of Σ a.
struct DotParts {
  static constexpr int threads = 256;
  static constexpr int width = pack_width<float>;
  const float* a;
  const float* b;
  double* parts;
  std::int64_t count, packs;

  WEFT_DEVICE void operator()(const Block& block) const {
    double sums[width] = {};
    for_grid(block, packs, [&](std::int64_t i) {
      const auto left = load_pack<width>(a + i * width);
      Pack<float, width> right{{1.0f, 1.0f, 1.0f, 1.0f}};
      if (b) right = load_pack<width>(b + i * width);
      for (int k = 0; k < width; ++k) sums[k] += static_cast<double>(left.at[k]) * static_cast<double>(right.at[k]);
    });
    for_grid(block, count - packs * width, [&](std::int64_t i) {
      const std::int64_t at = packs * width + i;
      sums[0] += static_cast<double>(a[at]) * (b ? static_cast<double>(b[at]) : 1.0);
    });
    const double sum = reduce_block(block, (sums[0] + sums[1]) + (sums[2] + sums[3]), Sum{}, block.shared<double>());
    if (block.thread() == 0) parts[block.index()] = sum;
  }
};

struct DotTotal {
  static constexpr int threads = 256;
  const double* parts;
  std::int64_t count;
  bool add;
  double* sum;

  WEFT_DEVICE void operator()(const Block& block) const {
    double total = 0;
    for_block(block, count, [&](std::int64_t i) { total += parts[i]; });
    total = reduce_block(block, total, Sum{}, block.shared<double>());
    if (block.thread() == 0) *sum = add ? *sum + total : total;
  }
};

void dot(ExecContext& exec, View a, View b, Write write, MutView sum) {
  check_given(a, a.shape, DType::f32, "a");
  check_like(b, a.shape, DType::f32, "b");
  const std::int64_t count = a.numel();
  const std::int64_t packs = packs_start_at(floats(a)) && packs_start_at(floats(b)) ? count / DotParts::width : 0;
  const std::int64_t blocks =
      std::min(most_dot_parts, blocks_for<DotParts>(std::max(packs, count - packs * DotParts::width)));
  auto* parts = static_cast<double*>(exec.scratch(most_dot_parts * sizeof(double)));
  launch(exec, blocks, DotParts{floats(a), floats(b), parts, count, packs}, reduce_bytes<double>);
  launch(exec, 1, DotTotal{parts, blocks, write == Write::add, sum.as<double>()}, reduce_bytes<double>);
}

}  // namespace

void bind_elementwise(KernelTable& table) {
  table.elementwise.gelu.bind(gelu);
  table.elementwise.gelu_backward.bind(gelu_backward);
  table.elementwise.swiglu.bind(swiglu);
  table.elementwise.swiglu_backward.bind(swiglu_backward);
  table.elementwise.add.bind(add);
  table.elementwise.copy.bind(copy);
  table.elementwise.accumulate.bind(accumulate);
  table.elementwise.fill.bind(fill);
  table.elementwise.scale.bind(scale);
  table.elementwise.dot.bind(dot);
}

}  // namespace weft::cuda
