// Layer and RMS norm; see core/kernels/norm.hpp. A group of threads holds a row in registers between its passes over it;
// the widest rows are read again (Held = 0).
#include <algorithm>

#include "core/cuda/device/dropout.hpp"
#include "core/cuda/device/reduce.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/launch.hpp"
#include "core/kernels/check.hpp"

namespace weft::cuda {
namespace {

/// body(j, col) for this thread's packs of a row: those at (j·Group + thread)·Width for j < Held, or with Held = 0 all
/// that the row has, with j = 0.
template <int Width, int Group, int Held, class Body>
WEFT_DEVICE void for_packs(int thread, std::int64_t cols, Body&& body) {
  if constexpr (Held > 0) {
    WEFT_UNROLL
    for (int j = 0; j < Held; ++j) {
      const std::int64_t col = (j * Group + thread) * Width;
      if (col < cols) body(j, col);
    }
  } else {
    for (std::int64_t col = thread * Width; col < cols; col += Group * Width) body(0, col);
  }
}

/// One row's packs of one operand.
template <class T, int Width, int Held>
struct RowPacks {
  Pack<T, Width> at[Held > 0 ? Held : 1] = {};

  /// The pack that a pass before this one left in at[j]; with Held = 0 there is one place, which is filled anew.
  WEFT_DEVICE const Pack<T, Width>& again(int j, const T* from) {
    if constexpr (Held > 0) return at[j];
    at[0] = load_pack<Width>(from);
    return at[0];
  }
};

template <class T, int Width, int Threads, int Group, int Held>
struct Forward {
  static constexpr int threads = Threads;
  const T* x;
  const T* branch;  // null: none, and no sum
  DropoutRule dropout;
  const float* gain;
  const float* bias;  // null: none
  float eps;
  T* sum;
  T* y;
  float* mean;  // may be null
  float* rstd;  // may be null
  std::int64_t rows, cols;
  bool rms;

  WEFT_DEVICE float sum_of_group(const Block& block, float value) const {
    if constexpr (Group == warp_threads)
      return reduce_warp(block, value, Sum{});
    else
      return reduce_block(block, value, Sum{}, block.shared<float>());
  }

  // The sum is rounded to what is stored, so that backward sees the same values.
  WEFT_DEVICE void add_branch(Pack<T, Width>& pack, const Pack<T, Width>& added, PhiloxKey key,
                              std::uint64_t index) const {
    Pack<float, Width> factors;
    for (int k = 0; k < Width; ++k) factors.at[k] = 1.0f;
    if (dropout.key) factors = dropout_factors<Width>(dropout, key, index);
    for (int k = 0; k < Width; ++k)
      pack.at[k] = from_float<T>(to_float(pack.at[k]) + to_float(added.at[k]) * factors.at[k]);
  }

  WEFT_DEVICE void operator()(const Block& block) const {
    const int thread = block.thread() % Group;
    const std::int64_t row = block.index() * (Threads / Group) + block.thread() / Group;
    if (row >= rows) return;  // whole warps of one row each; a group of the block's size always has a row
    const T* from = x + row * cols;
    RowPacks<T, Width, Held> packs, added;
    if constexpr (Held > 0)
      for_packs<Width, Group, Held>(thread, cols, [&](int j, std::int64_t col) {
        packs.at[j] = load_pack<Width>(from + col);
        if (branch) added.at[j] = load_pack<Width>(branch + row * cols + col);
      });
    float total = 0;
    const PhiloxKey key = dropout.read_key();
    const std::uint64_t index = dropout.row_index(row);
    for_packs<Width, Group, Held>(thread, cols, [&](int j, std::int64_t col) {
      packs.again(j, from + col);
      if (branch) {
        added.again(j, branch + row * cols + col);
        add_branch(packs.at[j], added.at[j], key, index + static_cast<std::uint64_t>(col));
        store_pack(sum + row * cols + col, packs.at[j]);
      }
      for (int k = 0; k < Width; ++k) total += to_float(packs.at[j].at[k]);
    });
    const T* normed = branch ? sum + row * cols : from;
    const float count = static_cast<float>(cols);
    const float center = rms ? 0.0f : sum_of_group(block, total) / count;
    float squares = 0;
    for_packs<Width, Group, Held>(thread, cols, [&](int j, std::int64_t col) {
      packs.again(j, normed + col);
      for (int k = 0; k < Width; ++k) {
        const float v = to_float(packs.at[j].at[k]) - center;
        squares += v * v;
      }
    });
    const float scale = rsqrt(sum_of_group(block, squares) / count + eps);
    if (thread == 0) {
      if (mean) mean[row] = center;
      if (rstd) rstd[row] = scale;
    }
    for_packs<Width, Group, Held>(thread, cols, [&](int j, std::int64_t col) {
      packs.again(j, normed + col);
      const auto weight = load_pack<Width>(gain + col);
      Pack<float, Width> shift{};
      if (bias) shift = load_pack<Width>(bias + col);
      Pack<T, Width> out;
      for (int k = 0; k < Width; ++k)
        out.at[k] = from_float<T>((to_float(packs.at[j].at[k]) - center) * scale * weight.at[k] + shift.at[k]);
      store_pack(y + row * cols + col, out);
    });
  }
};

/// A block takes `chunk` rows, one after another, and a thread the same columns of each. Its columns' sums for dgain and
/// dbias stand in registers, or with Held = 0 where they go to: gains, biases [blocks, cols].
template <class T, int Width, int Threads, int Held>
struct Backward {
  static constexpr int threads = Threads;
  static constexpr std::size_t shared_bytes = 2 * 2 * sizeof(float) * (Threads / warp_threads);
  /// Of gain and dsum: they are read again where registers do not reach for all.
  static constexpr int held_inputs = Width == 1 && Threads * Held > 4096 ? 0 : Held;
  const T* dy;
  const T* sum;
  const float* gain;
  const float* mean;  // null for RMS
  const float* rstd;
  const T* dsum;  // may be null
  DropoutRule dropout;
  T* dx;
  T* dbranch;  // may be null
  float* gains;
  float* biases;  // may be null
  std::int64_t rows, cols, chunk;
  bool rms;

  /// Both sums over the block. Rows take turns with two places in shared memory: who writes one has passed the barrier of
  /// the row between, and so has everyone who read it.
  WEFT_DEVICE void sum_both(const Block& block, std::int64_t row, float& a, float& b) const {
    constexpr int warps = Threads / warp_threads;
    a = reduce_warp(block, a, Sum{});
    b = reduce_warp(block, b, Sum{});
    float* place = block.shared<float>() + row % 2 * (2 * warps);
    if (block.lane() == 0) {
      place[block.warp()] = a;
      place[warps + block.warp()] = b;
    }
    block.sync();
    a = b = 0;
    for (int warp = 0; warp < warps; ++warp) {
      a += place[warp];
      b += place[warps + warp];
    }
  }

  WEFT_DEVICE void operator()(const Block& block) const {
    constexpr int held = Held > 0 ? Held : 1;
    const std::int64_t begin = block.index() * chunk, end = begin + chunk < rows ? begin + chunk : rows;
    const int thread = block.thread();
    const float count = static_cast<float>(cols);
    const PhiloxKey key = dropout.read_key();
    Pack<float, Width> dgain[held] = {}, dbias[held] = {};
    RowPacks<float, Width, held_inputs> weights;
    if constexpr (held_inputs > 0)
      for_packs<Width, Threads, Held>(thread, cols,
                                      [&](int j, std::int64_t col) { weights.at[j] = load_pack<Width>(gain + col); });
    for (std::int64_t row = begin; row < end; ++row) {
      const std::int64_t start = row * cols;
      const float center = mean ? mean[row] : 0.0f, scale = rstd[row];
      RowPacks<T, Width, Held> xs, ds;
      RowPacks<T, Width, held_inputs> sums;
      if constexpr (Held > 0)
        for_packs<Width, Threads, Held>(thread, cols, [&](int j, std::int64_t col) {
          xs.at[j] = load_pack<Width>(sum + start + col);
          ds.at[j] = load_pack<Width>(dy + start + col);
          if constexpr (held_inputs > 0)
            if (dsum) sums.at[j] = load_pack<Width>(dsum + start + col);
        });
      float sum_g = 0, sum_gx = 0;
      for_packs<Width, Threads, Held>(thread, cols, [&](int j, std::int64_t col) {
        xs.again(j, sum + start + col);
        ds.again(j, dy + start + col);
        if constexpr (Held == 0) {
          dgain[j] = dbias[j] = {};
          if (row > begin) dgain[j] = load_pack<Width>(gains + block.index() * cols + col);
          if (row > begin && biases) dbias[j] = load_pack<Width>(biases + block.index() * cols + col);
        }
        const Pack<float, Width>& weight = weights.again(j, gain + col);
        for (int k = 0; k < Width; ++k) {
          const float d = to_float(ds.at[j].at[k]), normed = (to_float(xs.at[j].at[k]) - center) * scale;
          const float g = d * weight.at[k];
          sum_g += g;
          sum_gx += g * normed;
          dgain[j].at[k] += d * normed;
          dbias[j].at[k] += d;
        }
        if constexpr (Held == 0) store_parameters(block, col, dgain[j], dbias[j]);
      });
      sum_both(block, row, sum_g, sum_gx);
      const float mean_g = rms ? 0.0f : sum_g / count, mean_gx = sum_gx / count;
      const std::uint64_t index = dropout.row_index(row);
      for_packs<Width, Threads, Held>(thread, cols, [&](int j, std::int64_t col) {
        xs.again(j, sum + start + col);
        ds.again(j, dy + start + col);
        const Pack<float, Width>& weight = weights.again(j, gain + col);
        Pack<T, Width> added{};
        if (dsum) added = sums.again(j, dsum + start + col);
        Pack<T, Width> out;
        for (int k = 0; k < Width; ++k) {
          const float normed = (to_float(xs.at[j].at[k]) - center) * scale;
          const float g = to_float(ds.at[j].at[k]) * weight.at[k];
          const float gradient = (g - mean_g - normed * mean_gx) * scale;
          out.at[k] = from_float<T>(dsum ? gradient + to_float(added.at[k]) : gradient);
        }
        store_pack(dx + start + col, out);
        if (!dbranch) return;
        if (dropout.key) {
          const auto factors = dropout_factors<Width>(dropout, key, index + static_cast<std::uint64_t>(col));
          for (int k = 0; k < Width; ++k) out.at[k] = from_float<T>(to_float(out.at[k]) * factors.at[k]);
        }
        store_pack(dbranch + start + col, out);
      });
    }
    if constexpr (Held > 0)
      for_packs<Width, Threads, Held>(
          thread, cols, [&](int j, std::int64_t col) { store_parameters(block, col, dgain[j], dbias[j]); });
  }

  WEFT_DEVICE void store_parameters(const Block& block, std::int64_t col, const Pack<float, Width>& dgain,
                                    const Pack<float, Width>& dbias) const {
    store_pack(gains + block.index() * cols + col, dgain);
    if (biases) store_pack(biases + block.index() * cols + col, dbias);
  }
};

/// y[c] (= or +=) Σ over parts [count, cols] for dgain, and for dbias in the blocks behind. A warp sums every warps-th part
/// of 32 columns.
struct SumParts {
  static constexpr int threads = 512;
  static constexpr int warps = threads / warp_threads;
  static constexpr std::size_t shared_bytes = threads * sizeof(float);
  const float* parts[2];
  float* y[2];
  std::int64_t count, cols;
  bool add;

  static constexpr std::int64_t blocks(std::int64_t columns) { return ceil_div(columns, warp_threads); }

  WEFT_DEVICE void operator()(const Block& block) const {
    const std::int64_t column_blocks = blocks(cols);
    const int which = block.index() < column_blocks ? 0 : 1;
    const std::int64_t col = (block.index() - which * column_blocks) * warp_threads + block.lane();
    const float* from = which == 0 ? parts[0] : parts[1];
    float* to = which == 0 ? y[0] : y[1];
    float total = 0;
    if (col < cols)
      for (std::int64_t i = block.warp(); i < count; i += warps) total += from[i * cols + col];
    auto* totals = block.shared<float>();
    totals[block.thread()] = total;
    block.sync();
    if (block.warp() != 0 || col >= cols) return;
    total = add ? to[col] : 0.0f;
    for (int warp = 0; warp < warps; ++warp) total += totals[warp * warp_threads + block.lane()];
    to[col] = total;
  }
};

template <class T>
const T* data_of(const View& view) {
  return static_cast<const T*>(view.data);
}
template <class T>
T* data_of(const MutView& view) {
  return static_cast<T*>(view.data);
}

/// Whether rows of all these operands, as far as they are there, go in packs.
template <int Width, class... T>
bool can_pack_rows(std::int64_t cols, const T*... data) {
  return (can_pack<Width>(data, cols, cols) && ...);
}

void forward(ExecContext& exec, NormKind kind, View x, View branch, DropoutSpec dropout, View gain, View bias,
             float eps, MutView sum, MutView y, MutView mean, MutView rstd) {
  const std::int64_t rows = x.rows(), cols = x.cols();
  if (rows == 0) return;
  check_norm_forward(x, branch, gain, bias, sum, y, mean, rstd);
  const bool rms = kind == NormKind::rms;
  dispatch_float(x.dtype, [&]<class T>() {
    const T *from = data_of<T>(x), *added = data_of<T>(branch);
    T *total = data_of<T>(sum), *to = data_of<T>(y);
    const auto start = [&]<int Width, int Threads, int Group, int Held>() {
      const Forward<T, Width, Threads, Group, Held> kernel{
          from,         added,        branch ? dropout_of(dropout) : DropoutRule{},
          floats(gain), floats(bias), eps,
          total,        to,           rms ? nullptr : floats(mean),
          floats(rstd), rows,         cols,
          rms};
      launch(exec, ceil_div(rows, Threads / Group), kernel, Group > warp_threads ? reduce_bytes<float> : 0);
    };
    const auto with_width = [&]<int Width>() {
      if (cols <= 1024) return start.template operator()<Width, 128, 32, 32 / Width>();
      if (cols <= 2048) return start.template operator()<Width, 256, 256, 8 / Width>();
      if (cols <= 8192) return start.template operator()<Width, 512, 512, 16 / Width>();
      start.template operator()<Width, 512, 512, 0>();
    };
    constexpr int width = pack_width<T>;
    const bool packed = can_pack_rows<width>(cols, from, added, total, to, floats(gain), floats(bias));
    packed ? with_width.template operator()<width>() : with_width.template operator()<1>();
  });
}

// Chunks of rows depend on the number of rows alone, so the same sums are taken on any device.
void backward(ExecContext& exec, NormKind kind, View dy, View sum, View gain, View mean, View rstd, View dsum,
              DropoutSpec dropout, Write write, MutView dx, MutView dbranch, MutView dgain, MutView dbias) {
  const std::int64_t rows = sum.rows(), cols = sum.cols();
  check_norm_backward(kind, dy, sum, gain, mean, rstd, dsum, dx, dbranch, dgain, dbias);
  const bool rms = kind == NormKind::rms;
  constexpr std::int64_t most_chunks = 792, least_rows = 4;  // six blocks for each processor of an H200
  const std::int64_t chunk = std::max(least_rows, ceil_div(rows, most_chunks)), chunks = ceil_div(rows, chunk);
  const std::int64_t stride = ceil_div(chunks * cols, 16) * 16;
  auto* gains = static_cast<float*>(exec.scratch(static_cast<std::size_t>(2 * stride) * sizeof(float) + 1));
  float* biases = dbias ? gains + stride : nullptr;
  dispatch_float(sum.dtype, [&]<class T>() {
    const T *from = data_of<T>(dy), *normed = data_of<T>(sum), *added = data_of<T>(dsum);
    T *to = data_of<T>(dx), *branch = data_of<T>(dbranch);
    const auto start = [&]<int Width, int Threads, int Held>() {
      using Kernel = Backward<T, Width, Threads, Held>;
      const Kernel kernel{from,
                          normed,
                          floats(gain),
                          rms ? nullptr : floats(mean),
                          floats(rstd),
                          added,
                          branch ? dropout_of(dropout) : DropoutRule{},
                          to,
                          branch,
                          gains,
                          biases,
                          rows,
                          cols,
                          chunk,
                          rms};
      launch(exec, chunks, kernel, Kernel::shared_bytes);
    };
    const auto with_width = [&]<int Width>() {
      if (cols <= 1024) return start.template operator()<Width, 128, 8 / Width>();
      if (cols <= 2048) return start.template operator()<Width, 256, 8 / Width>();
      if (cols <= 4096) return start.template operator()<Width, 256, 16 / Width>();
      if (cols <= 8192) return start.template operator()<Width, 512, 16 / Width>();
      start.template operator()<Width, 512, 0>();
    };
    constexpr int width = pack_width<T>;
    const bool packed = can_pack_rows<width>(cols, from, normed, added, to, branch, floats(gain));
    packed ? with_width.template operator()<width>() : with_width.template operator()<1>();
  });
  const SumParts parts{{gains, biases}, {floats(dgain), floats(dbias)}, chunks, cols, write == Write::add};
  launch(exec, SumParts::blocks(cols) * (dbias ? 2 : 1), parts, SumParts::shared_bytes);
}

}  // namespace

void bind_norm(KernelTable& table) {
  table.norm.forward.bind(forward);
  table.norm.backward.bind(backward);
}

}  // namespace weft::cuda
