// Gates of channels and the Boom layer's sum; see core/kernels/channels.hpp. A thread of a gate has some columns, works their
// gates out once and walks down the rows of its block's chunk.
#include <algorithm>

#include "core/cuda/device/activation.hpp"
#include "core/cuda/device/numeric.hpp"
#include "core/cuda/device/rows.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/launch.hpp"
#include "core/kernels/check_channels.hpp"

namespace weft::cuda {
namespace {

struct Gates {
  const float *a, *b;
  bool tanh;  // φ; else the sigmoid

  Gates(GateFunction phi, const View& ab, std::int64_t cols)
      : a(floats(ab)), b(floats(ab) + cols), tanh(phi == GateFunction::tanh) {}

  WEFT_DEVICE float phi(std::int64_t col) const { return tanh ? tanh_of(b[col]) : sigmoid(b[col]); }
  WEFT_DEVICE float at(std::int64_t col) const { return sigmoid(a[col]) * phi(col); }
};

/// How blocks share [rows, cols]: each has the columns of one slice in one chunk of rows.
template <int Width, int Threads>
struct Chunks {
  std::int64_t rows, cols, length;  // of a chunk, in rows

  constexpr std::int64_t slices() const { return ceil_div(cols, std::int64_t{Threads} * Width); }
  constexpr std::int64_t count() const { return ceil_div(rows, length); }
  constexpr std::int64_t blocks() const { return count() * slices(); }
  WEFT_DEVICE std::int64_t chunk(const Block& block) const { return block.index() / slices(); }
  /// This thread's first column; cols or more where it has none.
  WEFT_DEVICE std::int64_t col(const Block& block) const {
    return (block.index() % slices() * Threads + block.thread()) * Width;
  }
  WEFT_DEVICE std::int64_t end(std::int64_t chunk) const {
    return (chunk + 1) * length < rows ? (chunk + 1) * length : rows;
  }
};

template <class T, int Width>
struct Gate {
  static constexpr int threads = 128;
  const T* x;
  Gates gates;
  T* y;
  Chunks<Width, threads> chunks;

  WEFT_DEVICE void operator()(const Block& block) const {
    const std::int64_t chunk = chunks.chunk(block), col = chunks.col(block);
    if (col >= chunks.cols) return;
    float g[Width];
    for (int k = 0; k < Width; ++k) g[k] = gates.at(col + k);
    for (std::int64_t row = chunk * chunks.length; row < chunks.end(chunk); ++row) {
      auto pack = load_pack<Width>(x + row * chunks.cols + col);
      for (int k = 0; k < Width; ++k) pack.at[k] = from_float<T>(to_float(pack.at[k]) * g[k]);
      store_pack(y + row * chunks.cols + col, pack);
    }
  }
};

/// dx, and Σ x·dy of each chunk's rows into parts [chunks, cols].
template <class T, int Width>
struct GateBackward {
  static constexpr int threads = 128;
  const T* x;
  Gates gates;
  const T* dy;
  T* dx;
  float* parts;
  Chunks<Width, threads> chunks;

  WEFT_DEVICE void operator()(const Block& block) const {
    const std::int64_t chunk = chunks.chunk(block), col = chunks.col(block);
    if (col >= chunks.cols) return;
    float g[Width], sum[Width] = {};
    for (int k = 0; k < Width; ++k) g[k] = gates.at(col + k);
    for (std::int64_t row = chunk * chunks.length; row < chunks.end(chunk); ++row) {
      const std::int64_t at = row * chunks.cols + col;
      const auto in = load_pack<Width>(x + at), d = load_pack<Width>(dy + at);
      Pack<T, Width> out;
      for (int k = 0; k < Width; ++k) {
        sum[k] += to_float(in.at[k]) * to_float(d.at[k]);
        out.at[k] = from_float<T>(to_float(d.at[k]) * g[k]);
      }
      store_pack(dx + at, out);
    }
    for (int k = 0; k < Width; ++k) parts[chunk * chunks.cols + col + k] = sum[k];
  }
};

/// da and db from the chunks' sums, added in their order.
struct GateSlopes {
  static constexpr int threads = 128;
  Gates gates;
  const float* parts;
  std::int64_t chunks, cols;
  float *da, *db;

  WEFT_DEVICE void operator()(const Block& block) const {
    for_grid(block, cols, [&](std::int64_t col) {
      float dgate = 0;
      for (std::int64_t chunk = 0; chunk < chunks; ++chunk) dgate += parts[chunk * cols + col];
      const float s = sigmoid(gates.a[col]), phi = gates.phi(col);
      da[col] = dgate * phi * s * (1.0f - s);
      db[col] = dgate * s * (gates.tanh ? 1.0f - phi * phi : phi * (1.0f - phi));
    });
  }
};

template <class T, class Start>
void by_width(bool packed, Start&& start) {
  packed ? start.template operator()<pack_width<T>>() : start.template operator()<1>();
}

template <class T>
bool packs(const T* data, std::int64_t cols) {
  return can_pack<pack_width<T>>(data, cols, cols);
}

void gate(ExecContext& exec, GateFunction phi, View x, View ab, MutView y) {
  check_channel_gate(x, ab, y);
  const std::int64_t rows = x.rows(), cols = x.cols();
  if (x.numel() == 0) return;
  constexpr std::int64_t chunk_rows = 16;
  dispatch_float(x.dtype, [&]<class T>() {
    by_width<T>(packs(x.as<T>(), cols) && packs(y.as<T>(), cols), [&]<int Width>() {
      const Gate<T, Width> kernel{x.as<T>(), {phi, ab, cols}, y.as<T>(), {rows, cols, chunk_rows}};
      launch(exec, kernel.chunks.blocks(), kernel);
    });
  });
}

void gate_backward(ExecContext& exec, GateFunction phi, View x, View ab, View dy, MutView dx, MutView dab) {
  check_channel_gate_backward(x, ab, dy, dx, dab);
  const std::int64_t rows = x.rows(), cols = x.cols();
  if (cols == 0) return;
  constexpr std::int64_t most_chunks = 256, least_rows = 16;
  const std::int64_t length = std::max(least_rows, ceil_div(rows, most_chunks)), chunks = ceil_div(rows, length);
  auto* parts = static_cast<float*>(exec.scratch(static_cast<std::size_t>(chunks * cols + 1) * sizeof(float)));
  const Gates gates(phi, ab, cols);
  dispatch_float(x.dtype, [&]<class T>() {
    const bool packed = packs(x.as<T>(), cols) && packs(dy.as<T>(), cols) && packs(dx.as<T>(), cols);
    by_width<T>(packed, [&]<int Width>() {
      const GateBackward<T, Width> kernel{x.as<T>(), gates, dy.as<T>(), dx.as<T>(), parts, {rows, cols, length}};
      launch(exec, kernel.chunks.blocks(), kernel);
    });
  });
  launch(exec, blocks_for<GateSlopes>(cols), GateSlopes{gates, parts, chunks, cols, floats(dab), floats(dab) + cols});
}

template <class T, int Width>
struct Boom {
  static constexpr int threads = 256;
  const T* x;
  T* y;
  std::int64_t rows, cols, chunks;

  WEFT_DEVICE void operator()(const Block& block) const {
    for_row_packs<Width>(block, rows, cols, [&](std::int64_t row) {
      const T* from = x + row * chunks * cols;
      T* to = y + row * cols;
      return [from, to, chunks = chunks, cols = cols](std::int64_t col) {
        float sum[Width] = {};
        for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
          const auto in = load_pack<Width>(from + chunk * cols + col);
          for (int k = 0; k < Width; ++k) sum[k] += gelu_of(to_float(in.at[k]));
        }
        Pack<T, Width> out;
        for (int k = 0; k < Width; ++k) out.at[k] = from_float<T>(sum[k]);
        store_pack(to + col, out);
      };
    });
  }
};

template <class T, int Width>
struct BoomBackward {
  static constexpr int threads = 256;
  const T* x;
  const T* dy;
  T* dx;
  std::int64_t rows, cols, chunks;

  WEFT_DEVICE void operator()(const Block& block) const {
    for_row_packs<Width>(block, rows, cols, [&](std::int64_t row) {
      const T* from = x + row * chunks * cols;
      const T* d = dy + row * cols;
      T* to = dx + row * chunks * cols;
      return [from, d, to, chunks = chunks, cols = cols](std::int64_t col) {
        const auto slope = load_pack<Width>(d + col);
        for (std::int64_t chunk = 0; chunk < chunks; ++chunk) {
          auto pack = load_pack<Width>(from + chunk * cols + col);
          for (int k = 0; k < Width; ++k)
            pack.at[k] = from_float<T>(to_float(slope.at[k]) * gelu_slope(to_float(pack.at[k])));
          store_pack(to + chunk * cols + col, pack);
        }
      };
    });
  }
};

void boom(ExecContext& exec, View x, MutView y) {
  const std::int64_t chunks = check_boom(x, y), rows = y.rows(), cols = y.cols();
  if (y.numel() == 0) return;
  dispatch_float(y.dtype, [&]<class T>() {
    by_width<T>(packs(x.as<T>(), cols) && packs(y.as<T>(), cols), [&]<int Width>() {
      using Kernel = Boom<T, Width>;
      launch(exec, row_blocks<Kernel, Width>(rows, cols), Kernel{x.as<T>(), y.as<T>(), rows, cols, chunks});
    });
  });
}

void boom_backward(ExecContext& exec, View x, View dy, MutView dx) {
  const std::int64_t chunks = check_boom(x, dy), rows = dy.rows(), cols = dy.cols();
  check_given(dx, x.shape, x.dtype, "dx");
  if (dy.numel() == 0) return;
  dispatch_float(dy.dtype, [&]<class T>() {
    const bool packed = packs(x.as<T>(), cols) && packs(dy.as<T>(), cols) && packs(dx.as<T>(), cols);
    by_width<T>(packed, [&]<int Width>() {
      using Kernel = BoomBackward<T, Width>;
      launch(exec, row_blocks<Kernel, Width>(rows, cols),
             Kernel{x.as<T>(), dy.as<T>(), dx.as<T>(), rows, cols, chunks});
    });
  });
}

}  // namespace

void bind_channels(KernelTable& table) {
  table.channel.gate.bind(gate);
  table.channel.gate_backward.bind(gate_backward);
  table.channel.boom.bind(boom);
  table.channel.boom_backward.bind(boom_backward);
}

}  // namespace weft::cuda
