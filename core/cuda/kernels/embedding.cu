// Embeddings and rotary positions; see core/kernels/embedding.hpp.
#include <algorithm>
#include <bit>
#include <cmath>

#include "core/cuda/device/dropout.hpp"
#include "core/cuda/device/rows.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/kernels/row_order.hpp"
#include "core/cuda/launch.hpp"
#include "core/kernels/check.hpp"

namespace weft::cuda {
namespace {

template <class T, int Width>
struct Forward {
  static constexpr int threads = 256;
  TokenIds tokens;
  const float* token_table;
  const float* position_table;  // may be null
  DropoutRule dropout;          // its rows are set even without dropout
  T* y;
  std::int64_t rows, cols;

  // The host cannot look at tokens, so one that is in no shard's table gives NaN, which a training step is skipped for.
  WEFT_DEVICE void operator()(const Block& block) const {
    const PhiloxKey key = dropout.read_key();
    for_row_packs<Width>(block, rows, cols, [&](std::int64_t row) {
      const std::int64_t id = tokens.id(row);
      const float* token = id < tokens.vocabulary ? token_table + id * cols : nullptr;
      const float absent = tokens.exists(row) ? 0.0f : NAN;
      const float* position = nullptr;
      if (position_table) position = position_table + dropout.rows.position(row % dropout.rows.seq_local) * cols;
      T* to = y + row * cols;
      const std::uint64_t index = dropout.row_index(row);
      return [this, key, token, absent, position, to, index](std::int64_t col) {
        Pack<float, Width> sum;
        for (int k = 0; k < Width; ++k) sum.at[k] = absent;
        if (token) sum = load_pack<Width>(token + col);
        if (position) {
          const auto added = load_pack<Width>(position + col);
          for (int k = 0; k < Width; ++k) sum.at[k] += added.at[k];
        }
        if (dropout.key) {
          const auto factors = dropout_factors<Width>(dropout, key, index + static_cast<std::uint64_t>(col));
          for (int k = 0; k < Width; ++k) sum.at[k] *= factors.at[k];
        }
        Pack<T, Width> out;
        for (int k = 0; k < Width; ++k) out.at[k] = from_float<T>(sum.at[k]);
        store_pack(to + col, out);
      };
    });
  }
};

/// One row's dy·factor at `col`, added to `sum`.
template <class T, int Width>
WEFT_DEVICE void add_dropped(Pack<float, Width>& sum, const Pack<T, Width>& dy, const DropoutRule& dropout,
                             PhiloxKey key, std::uint64_t index) {
  if (!dropout.key) {
    for (int k = 0; k < Width; ++k) sum.at[k] += to_float(dy.at[k]);
    return;
  }
  const auto factors = dropout_factors<Width>(dropout, key, index);
  for (int k = 0; k < Width; ++k) sum.at[k] += to_float(dy.at[k]) * factors.at[k];
}

template <int Width>
WEFT_DEVICE void add_pack(float* to, const Pack<float, Width>& sum) {
  auto pack = load_pack<Width>(to);
  for (int k = 0; k < Width; ++k) pack.at[k] += sum.at[k];
  store_pack(to, pack);
}

/// Rows in the order of their tokens, in chunks of equal length, so that a frequent token is no block's burden alone.
struct TokenChunks {
  static constexpr int length = 32;
  TokenIds tokens;
  const std::int32_t* order;
  std::int64_t count;

  constexpr std::int64_t chunks() const { return ceil_div(count, length); }
  WEFT_DEVICE std::int64_t id_at(std::int64_t place) const { return tokens.id(order[place]); }
};

/// Sums each chunk's rows token by token in their order: into dtokens, but for a token that began in an earlier chunk into
/// partials [chunks, cols]. A block has one chunk's rows and threads·Width columns.
template <class T, int Width>
struct SumChunks {
  static constexpr int threads = 128;
  static constexpr int batch = 4;  // rows in flight at once
  struct Shared {
    std::uint64_t index[TokenChunks::length];
    std::int64_t id[TokenChunks::length + 1];  // behind that of the row before the chunk, −1 if there is none
    std::int32_t row[TokenChunks::length];
  };
  TokenChunks chunks;
  const T* dy;
  DropoutRule dropout;
  float* dtokens;
  float* partials;
  std::int64_t cols;

  constexpr std::int64_t slices() const { return ceil_div(cols, threads * Width); }

  WEFT_DEVICE void operator()(const Block& block) const {
    auto& shared = *block.shared<Shared>();
    const std::int64_t chunk = block.index() / slices(), first = chunk * TokenChunks::length;
    const int length =
        static_cast<int>(chunks.count - first < TokenChunks::length ? chunks.count - first : TokenChunks::length);
    if (block.thread() < length) {
      const int i = block.thread();
      shared.row[i] = chunks.order[first + i];
      shared.id[i + 1] = chunks.tokens.id(shared.row[i]);
      shared.index[i] = dropout.row_index(shared.row[i]);
    } else if (block.thread() == TokenChunks::length) {
      shared.id[0] = first > 0 ? chunks.id_at(first - 1) : -1;
    }
    block.sync();
    const std::int64_t col = (block.index() % slices() * threads + block.thread()) * Width;
    if (col >= cols) return;
    const PhiloxKey key = dropout.read_key();
    Pack<float, Width> sum{};
    bool began_before = shared.id[0] == shared.id[1];
    for (int from = 0; from < length; from += batch) {
      Pack<T, Width> packs[batch] = {};
      WEFT_UNROLL
      for (int k = 0; k < batch; ++k)
        if (from + k < length) packs[k] = load_pack<Width>(dy + shared.row[from + k] * cols + col);
      WEFT_UNROLL
      for (int k = 0; k < batch; ++k) {
        const int i = from + k;
        if (i >= length) continue;
        const std::int64_t id = shared.id[i + 1];
        add_dropped(sum, packs[k], dropout, key, shared.index[i] + static_cast<std::uint64_t>(col));
        if (i + 1 < length && shared.id[i + 2] == id) continue;
        if (began_before)
          store_pack(partials + chunk * cols + col, sum);
        else if (id < chunks.tokens.vocabulary)
          add_pack<Width>(dtokens + id * cols + col, sum);
        began_before = false;
        sum = {};
      }
    }
  }
};

/// Adds to dtokens what SumChunks left in partials: the block of a token's second chunk adds all of them in order.
template <int Width>
struct JoinChunks {
  static constexpr int threads = 128;
  static constexpr int batch = 8;
  TokenChunks chunks;
  const float* partials;
  float* dtokens;
  std::int64_t cols;

  constexpr std::int64_t slices() const { return ceil_div(cols, threads * Width); }

  WEFT_DEVICE void operator()(const Block& block) const {
    constexpr std::int64_t length = TokenChunks::length;
    const std::int64_t chunk = 1 + block.index() / slices();
    const std::int64_t col = (block.index() % slices() * threads + block.thread()) * Width;
    const std::int64_t id = chunks.id_at(chunk * length);
    const bool second =
        chunks.id_at(chunk * length - 1) == id && (chunk == 1 || chunks.id_at((chunk - 1) * length - 1) != id);
    if (!second || id == chunks.tokens.vocabulary || col >= cols) return;
    std::int64_t end = chunk + 1, beyond = chunks.chunks();  // chunks before `end` begin with this token
    while (end < beyond) {
      const std::int64_t middle = end + (beyond - end) / 2;
      if (chunks.id_at(middle * length) == id)
        end = middle + 1;
      else
        beyond = middle;
    }
    Pack<float, Width> sum{};
    for (std::int64_t from = chunk; from < end; from += batch) {
      Pack<float, Width> packs[batch] = {};
      WEFT_UNROLL
      for (int k = 0; k < batch; ++k)
        if (from + k < end) packs[k] = load_pack<Width>(partials + (from + k) * cols + col);
      WEFT_UNROLL
      for (int k = 0; k < batch; ++k)
        for (int i = 0; i < Width; ++i) sum.at[i] += packs[k].at[i];
    }
    add_pack<Width>(dtokens + id * cols + col, sum);
  }
};

/// dpositions[position(t)] += Σ over sequences of their token t's row, in order. Intervals of one map share no position.
template <class T, int Width>
struct SumSequences {
  static constexpr int threads = 256;
  const T* dy;
  DropoutRule dropout;  // its rows are set even without dropout
  float* dpositions;
  std::int64_t rows, cols;

  WEFT_DEVICE void operator()(const Block& block) const {
    const PhiloxKey key = dropout.read_key();
    const std::int64_t length = dropout.rows.seq_local;
    for_row_packs<Width>(block, rows < length ? rows : length, cols, [&](std::int64_t token) {
      float* to = dpositions + dropout.rows.position(token) * cols;
      const std::uint64_t first = dropout.row_index(token);
      return [this, key, length, token, to, first](std::int64_t col) {
        const auto step = static_cast<std::uint64_t>(dropout.rows.seq_global * dropout.cols_global);
        std::uint64_t index = first + static_cast<std::uint64_t>(col);
        Pack<float, Width> sum{};
        for (std::int64_t row = token; row < rows; row += length, index += step)
          add_dropped(sum, load_pack<Width>(dy + row * cols + col), dropout, key, index);
        add_pack<Width>(to + col, sum);
      };
    });
  }
};

/// turns[t] = cos | sin of position(t)·theta^(−2i/dim) for i < dim/2. In f64: positions are large, and f32 has few bits
/// left for the angle.
struct Turns {
  static constexpr int threads = 128;
  float* turns;
  TokenMap rows;
  double theta, direction;
  std::int64_t tokens, dim;

  WEFT_DEVICE void operator()(const Block& block) const {
    const std::int64_t half = dim / 2;
    for_grid(block, tokens * half, [&](std::int64_t at) {
      const std::int64_t token = at / half, i = at - token * half;
      const double frequency = pow(theta, -2.0 * static_cast<double>(i) / static_cast<double>(dim));
      const double angle = static_cast<double>(rows.position(token)) * direction * frequency;
      turns[token * dim + i] = static_cast<float>(cos(angle));
      turns[token * dim + half + i] = static_cast<float>(sin(angle));
    });
  }
};

template <class T, int Width>
struct Rotate {
  static constexpr int threads = 256;
  const T* x;
  T* y;
  const float* turns;
  std::int64_t count;  // packs of all first halves
  std::int64_t tokens, heads, dim;
  std::int64_t x_batch, x_token, x_head, y_batch, y_token, y_head;  // strides

  WEFT_DEVICE void operator()(const Block& block) const {
    const std::int64_t half = dim / 2, runs = half / Width;
    for_grid(block, count, [&](std::int64_t at) {
      const std::int64_t head_row = at / runs, i = (at - head_row * runs) * Width;
      const std::int64_t row = head_row / heads, head = head_row - row * heads;
      const std::int64_t sequence = row / tokens, token = row - sequence * tokens;
      const T* from = x + sequence * x_batch + token * x_token + head * x_head + i;
      T* to = y + sequence * y_batch + token * y_token + head * y_head + i;
      const auto first = load_pack<Width>(from), second = load_pack<Width>(from + half);
      const auto cosines = load_pack<Width>(turns + token * dim + i);
      const auto sines = load_pack<Width>(turns + token * dim + half + i);
      Pack<T, Width> out, behind;
      for (int k = 0; k < Width; ++k) {
        const float a = to_float(first.at[k]), b = to_float(second.at[k]);
        out.at[k] = from_float<T>(a * cosines.at[k] - b * sines.at[k]);
        behind.at[k] = from_float<T>(b * cosines.at[k] + a * sines.at[k]);
      }
      store_pack(to, out);
      store_pack(to + half, behind);
    });
  }
};

TokenIds token_ids(const View& tokens, std::int64_t rows, const VocabShard& shard, std::int64_t held) {
  check_given(tokens.reshaped({tokens.numel()}), {rows}, DType::i32, "tokens");
  const std::int64_t size = shard.size > 0 ? shard.size : held;
  WEFT_CHECK(shard.begin >= 0 && shard.begin + held <= size, "tokens [{}, {}) of a vocabulary of {}", shard.begin,
             shard.begin + held, size);
  return {tokens.as<std::int32_t>(), held, shard.begin, size};
}

DropoutRule dropout_at(const DropoutSpec& spec, const TokenMap& rows) {
  DropoutRule dropout = dropout_of(spec);
  dropout.rows = rows;
  return dropout;
}

void forward(ExecContext& exec, View tokens, View tokens_table, VocabShard shard, View positions_table, TokenMap rows,
             DropoutSpec dropout, MutView y) {
  const std::int64_t count = y.rows(), cols = y.cols();
  if (count == 0) return;
  check_given(y, y.shape, y.dtype, "y");
  check_given(tokens_table, {tokens_table.shape[0], cols}, DType::f32, "tokens_table");
  const TokenIds ids = token_ids(tokens, count, shard, tokens_table.shape[0]);
  check_positions(positions_table, rows, cols);
  dispatch_float(y.dtype, [&]<class T>() {
    const auto start = [&]<int Width>() {
      const Forward<T, Width> kernel{
          ids, floats(tokens_table), floats(positions_table), dropout_at(dropout, rows), y.as<T>(), count, cols};
      launch(exec, row_blocks<Forward<T, Width>, Width>(count, cols), kernel);
    };
    constexpr int width = pack_width<T>;
    const bool packed = can_pack<width>(y.as<T>(), cols, cols) && can_pack<width>(floats(tokens_table), cols, cols) &&
                        can_pack<width>(floats(positions_table), cols, cols);
    packed ? start.template operator()<width>() : start.template operator()<1>();
  });
}

void backward(ExecContext& exec, View dy, View tokens, VocabShard shard, TokenMap rows, DropoutSpec dropout,
              MutView dtokens, MutView dpositions) {
  const std::int64_t count = dy.rows(), cols = dy.cols();
  if (count == 0) return;
  check_given(dy, dy.shape, dy.dtype, "dy");
  check_given(dtokens, {dtokens.shape[0], cols}, DType::f32, "dtokens");
  const TokenIds ids = token_ids(tokens, count, shard, dtokens.shape[0]);
  check_positions(dpositions, rows, cols);
  const auto order_bytes = row_order_bytes(count);
  const auto partial_bytes = static_cast<std::size_t>(ceil_div(count, TokenChunks::length) * cols) * sizeof(float);
  auto* scratch = static_cast<char*>(exec.scratch(order_bytes + partial_bytes));
  const TokenChunks chunks{ids, order_rows(exec, ids, count, scratch), count};
  auto* partials = reinterpret_cast<float*>(scratch + order_bytes);
  dispatch_float(dy.dtype, [&]<class T>() {
    const auto start = [&]<int Width>() {
      const DropoutRule rule = dropout_at(dropout, rows);
      const SumChunks<T, Width> sum{chunks, dy.as<T>(), rule, floats(dtokens), partials, cols};
      launch(exec, chunks.chunks() * sum.slices(), sum, sizeof(typename SumChunks<T, Width>::Shared));
      const JoinChunks<Width> join{chunks, partials, floats(dtokens), cols};
      launch(exec, (chunks.chunks() - 1) * join.slices(), join);
      if (!dpositions) return;
      const SumSequences<T, Width> positions{dy.as<T>(), rule, floats(dpositions), count, cols};
      const std::int64_t length = std::min(count, rows.seq_local);
      launch(exec, row_blocks<SumSequences<T, Width>, Width>(length, cols), positions);
    };
    constexpr int width = pack_width<T>;
    const bool packed = can_pack<width>(dy.as<T>(), cols, cols) && can_pack<width>(floats(dtokens), cols, cols) &&
                        can_pack<width>(floats(dpositions), cols, cols);
    packed ? start.template operator()<width>() : start.template operator()<1>();
  });
}

void rotary(ExecContext& exec, View x, TokenMap rows, float theta, bool inverse, MutView y) {
  WEFT_CHECK(x.shape.rank() == 4 && x.shape == y.shape && x.dtype == y.dtype, "x is {}, y is {}", to_string(x.shape),
             to_string(y.shape));
  const std::int64_t tokens = x.shape[1], heads = x.shape[2], dim = x.shape[3], half = dim / 2;
  if (x.numel() == 0) return;
  WEFT_CHECK(dim % 2 == 0 && x.strides[3] == 1 && y.strides[3] == 1, "head size {}", dim);
  auto* turns = static_cast<float*>(exec.scratch(static_cast<std::size_t>(tokens * dim) * sizeof(float)));
  launch(exec, blocks_for<Turns>(tokens * half),
         Turns{turns, rows, static_cast<double>(theta), inverse ? -1.0 : 1.0, tokens, dim});
  dispatch_float(x.dtype, [&]<class T>() {
    const auto start = [&]<int Width>() {
      const std::int64_t count = x.numel() / 2 / Width;
      const Rotate<T, Width> kernel{x.as<T>(),    y.as<T>(),    turns,        count,        tokens,
                                    heads,        dim,          x.strides[0], x.strides[1], x.strides[2],
                                    y.strides[0], y.strides[1], y.strides[2]};
      launch(exec, blocks_for<Rotate<T, Width>>(count), kernel);
    };
    constexpr int width = pack_width<T>;
    bool packed = true;
    for (int i = 0; i < 3; ++i)
      packed =
          packed && can_pack<width>(x.as<T>(), half, x.strides[i]) && can_pack<width>(y.as<T>(), half, y.strides[i]);
    packed ? start.template operator()<width>() : start.template operator()<1>();
  });
}

}  // namespace

void bind_embedding(KernelTable& table) {
  table.embedding.forward.bind(forward);
  table.embedding.backward.bind(backward);
  table.embedding.rotary.bind(rotary);
}

}  // namespace weft::cuda
