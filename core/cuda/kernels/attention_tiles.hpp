// Products of tiles in registers. A block owns a tile of `rows` rows (queries, or keys), whose operands stay in shared
// memory, and walks over tiles of `cols` columns (keys, or queries), whose operands pass through a small stage in
// shared memory chunk by chunk: while one chunk is multiplied, the next is on its way from memory into registers.
//
//   scores   S[rows, cols] = A[rows, dim] · B[cols, dim]ᵀ    chunks are all rows of B and some of its columns
//   sums     C[rows, dim] += W[rows, cols] · B[cols, dim]    chunks are some rows of B and all its columns
//
// Both read their operands in natural order by 16 bytes, so nothing is transposed. dim is padded with zeros.
#pragma once
#include <bit>

#include "core/cuda/device/reduce.hpp"
#include "core/cuda/kernels/attention_problem.hpp"

namespace weft::cuda::attention {

/// How a block's threads share a tile: a grid of `down` × `across`. Thread (row, col) has the scores of rows row +
/// down·i at columns col + across·j, and the sums of these rows at columns 4·(col + across·j) .. +3.
template <int dim_, int threads_, int across_, int rows_, int cols_>
struct Plan {
  static constexpr int dim = dim_, threads = threads_, across = across_, down = threads / across;
  static constexpr int rows = rows_, cols = cols_;
  static constexpr int patch_rows = rows / down, patch_cols = cols / across, patch_packs = dim / (4 * across);
  static constexpr int chunk = 16 * threads;  // elements, so that a thread carries no more than 16
  static constexpr int deep = chunk / cols;   // columns of a chunk for scores
  static constexpr int tall =
      std::min(cols, static_cast<int>(std::bit_floor(unsigned{chunk / dim})));  // rows, for sums
  // Strides of rows in shared memory that send neighbouring rows to different banks.
  static constexpr int resident_stride = dim + 4, deep_stride = deep + 4, score_stride = cols + (across == 8 ? 8 : 4);
  static constexpr int resident_floats = rows * resident_stride, score_floats = rows * score_stride;
  static constexpr int deep_floats = cols * deep_stride, tall_floats = tall * dim;
  static constexpr int stage_floats = std::max(deep_floats, tall_floats);

  using Scores = float[patch_rows][patch_cols];
  using Sums = float[patch_rows][4 * patch_packs];

  static_assert(across == 8 || across == 16);
  static_assert(dim % (4 * across) == 0 && dim % deep == 0 && cols % tall == 0);
  static_assert(rows % down == 0 && cols % across == 0 && rows % tall == 0);
};

/// Of heads wider than 256, whose rows leave room in shared memory for few of them.
template <int dim, int cols>
using WidePlan = Plan<dim, 256, 16, dim <= 512 ? 32 : 16, cols>;

/// A thread's place in the plan's grid. Lanes are numbered such that of four neighbours two have the same row and two the
/// same column, and a half-warp spans two rows: then its 16-byte reads of either operand are one pass over the banks.
template <class P>
struct Place {
  int row, col;

  explicit WEFT_DEVICE Place(const Block& block) {
    const int lane = block.lane(), low = lane >> 1;
    col = (lane & 1) | (low & (P::across == 16 ? 14 : 6));
    row = block.warp() * (warp_threads / P::across) + (low & 1) + (P::across == 16 ? 0 : (lane >> 4) * 2);
  }
};

/// `op` over the threads that share a row; the result in all of them.
template <class P, class Op>
WEFT_DEVICE float reduce_row(const Block& block, float value, Op op) {
  value = op(value, block.shuffle_xor(value, 1));
  value = op(value, block.shuffle_xor(value, 4));
  value = op(value, block.shuffle_xor(value, 8));
  if constexpr (P::across == 16) value = op(value, block.shuffle_xor(value, 16));
  return value;
}

/// body(i, j, row, col) for this thread's scores.
template <class P, class Body>
WEFT_DEVICE void for_scores(const Place<P>& place, Body&& body) {
  WEFT_UNROLL
  for (int i = 0; i < P::patch_rows; ++i) {
    WEFT_UNROLL
    for (int j = 0; j < P::patch_cols; ++j) body(i, j, place.row + P::down * i, place.col + P::across * j);
  }
}

/// A thread's share of `rows` × `cols` elements on their way from memory to f32 in shared memory.
template <class T, int rows, int cols, int threads>
struct Chunk {
  static constexpr int width = pack_width<T>, row_packs = cols / width, total = rows * row_packs;
  static constexpr int each = static_cast<int>(ceil_div(total, threads));
  static_assert(cols % width == 0);
  Pack<T, width> packs[each];

  /// Elements from (first_row, first_col) on; zeros beyond the rows' ends.
  template <class Source>
  WEFT_DEVICE void fetch(int thread, const Source& from, int first_row, int first_col) {
    // The rows and columns of the thread's packs are a fixed step apart where a row's packs divide the threads.
    constexpr bool even = threads % row_packs == 0;
    const int row = first_row + thread / row_packs, col = first_col + thread % row_packs * width;
    const T* at = from.data + row * from.stride + col;
    WEFT_UNROLL
    for (int i = 0; i < each; ++i) {
      if constexpr (even) {
        fetch_pack(packs[i], from, at, row + i * (threads / row_packs), col);
        at += threads / row_packs * from.stride;
      } else {
        const int index = thread + i * threads, r = first_row + index / row_packs;
        const int c = first_col + index % row_packs * width;
        fetch_pack(packs[i], from, from.data + r * from.stride + c, r, c);
      }
    }
  }

  /// What was fetched from (.., first_col) on, plus the source's bias, times `scale`.
  template <class Source>
  WEFT_DEVICE void put(int thread, const Source& from, int first_col, float* to, int stride, float scale = 1.0f) const {
    WEFT_UNROLL
    for (int i = 0; i < each; ++i) {
      const int index = thread + i * threads;
      if (total % threads != 0 && index >= total) continue;
      float* at = to + index / row_packs * stride + index % row_packs * width;
      WEFT_UNROLL
      for (int k = 0; k < width; k += 4) {
        Pack<float, 4> floats;
        WEFT_UNROLL
        for (int c = 0; c < 4; ++c) {
          float value = to_float(packs[i].at[k + c]);
          if (const float* bias = from.bias()) {
            const int col = first_col + index % row_packs * width + k + c;
            if (col < from.dim) value += bias[col];
          }
          floats.at[c] = value * scale;
        }
        store_pack(at + k, floats);
      }
    }
  }

 private:
  template <class Source>
  WEFT_DEVICE static void fetch_pack(Pack<T, width>& pack, const Source& from, const T* at, int row, int col) {
    pack = {};
    if (!from.holds(row)) return;
    if (from.packed) {
      if (col < from.dim) pack = load_pack<width>(at);
    } else {
      WEFT_UNROLL
      for (int k = 0; k < width; ++k)
        if (col + k < from.dim) pack.at[k] = at[k];
    }
  }
};

/// s += a·bᵀ over a chunk's columns; `a` is at the thread's first row, `b` at the stage's row of its first column.
template <class P>
WEFT_DEVICE void multiply_scores(const float* a, const float* b, typename P::Scores& s) {
  constexpr int m = P::patch_rows, n = P::patch_cols, a_step = P::down * P::resident_stride;
  constexpr int b_step = P::across * P::deep_stride;
  for (int k = 0; k < P::deep; k += 4) {
    // The smaller operand waits in registers while the other passes.
    if constexpr (m <= n) {
      Pack<float, 4> left[m];
      WEFT_UNROLL
      for (int i = 0; i < m; ++i) left[i] = load_pack<4>(a + i * a_step + k);
      WEFT_UNROLL
      for (int j = 0; j < n; ++j) {
        const auto right = load_pack<4>(b + j * b_step + k);
        WEFT_UNROLL
        for (int c = 0; c < 4; ++c) {
          WEFT_UNROLL
          for (int i = 0; i < m; ++i) s[i][j] += left[i].at[c] * right.at[c];
        }
      }
    } else {
      Pack<float, 4> right[n];
      WEFT_UNROLL
      for (int j = 0; j < n; ++j) right[j] = load_pack<4>(b + j * b_step + k);
      WEFT_UNROLL
      for (int i = 0; i < m; ++i) {
        const auto left = load_pack<4>(a + i * a_step + k);
        WEFT_UNROLL
        for (int c = 0; c < 4; ++c) {
          WEFT_UNROLL
          for (int j = 0; j < n; ++j) s[i][j] += left.at[c] * right[j].at[c];
        }
      }
    }
  }
}

/// sums += w·b over a chunk's rows; `w` is at the thread's first row, `b` at the stage's first row and the thread's
/// first column.
template <class P>
WEFT_DEVICE void multiply_sums(const float* w, const float* b, typename P::Sums& sums) {
  constexpr int m = P::patch_rows, w_step = P::down * P::score_stride;
  for (int k = 0; k < P::tall; k += 4) {
    Pack<float, 4> left[m];
    WEFT_UNROLL
    for (int i = 0; i < m; ++i) left[i] = load_pack<4>(w + i * w_step + k);
    WEFT_UNROLL
    for (int c = 0; c < 4; ++c) {
      WEFT_UNROLL
      for (int j = 0; j < P::patch_packs; ++j) {
        const auto right = load_pack<4>(b + (k + c) * P::dim + j * 4 * P::across);
        WEFT_UNROLL
        for (int i = 0; i < m; ++i) {
          WEFT_UNROLL
          for (int e = 0; e < 4; ++e) sums[i][4 * j + e] += left[i].at[c] * right.at[e];
        }
      }
    }
  }
}

/// A block's products, with the stage that they share. A product's first chunk must have been fetched before, by the
/// `next` of the product before it, which runs while that one's last chunk is multiplied. All threads take part.
template <class T, class P>
class Products {
 public:
  WEFT_DEVICE Products(const Block& block, float* stage) : block_(block), place_(block), stage_(stage) {}

  WEFT_DEVICE const Place<P>& place() const { return place_; }

  template <class Source>
  WEFT_DEVICE void fetch_for_scores(const Source& from) {
    deep_.fetch(block_.thread(), from, 0, 0);
  }
  template <class Source>
  WEFT_DEVICE void fetch_for_sums(const Source& from) {
    tall_.fetch(block_.thread(), from, 0, 0);
  }

  /// The operand that stays, times `scale`.
  template <class Source>
  WEFT_DEVICE void load_resident(const Source& from, float scale, float* to) {
    for (int first = 0; first < P::rows; first += P::tall) {
      tall_.fetch(block_.thread(), from, first, 0);
      tall_.put(block_.thread(), from, 0, to + first * P::resident_stride, P::resident_stride, scale);
    }
  }

  template <class Source, class Next>
  WEFT_DEVICE void scores(const float* resident, const Source& from, typename P::Scores& s, Next&& next) {
    for_scores<P>(place_, [&](int i, int j, int, int) { s[i][j] = 0; });
    for (int first = 0; first < P::dim; first += P::deep) {
      deep_.put(block_.thread(), from, first, stage_, P::deep_stride);
      block_.sync();
      if (first + P::deep < P::dim)
        deep_.fetch(block_.thread(), from, 0, first + P::deep);
      else
        next();
      multiply_scores<P>(resident + place_.row * P::resident_stride + first, stage_ + place_.col * P::deep_stride, s);
      block_.sync();
    }
  }

  template <class Source, class Next>
  WEFT_DEVICE void sums(const float* weights, const Source& from, typename P::Sums& sums, Next&& next) {
    for (int first = 0; first < P::cols; first += P::tall) {
      tall_.put(block_.thread(), from, 0, stage_, P::dim);
      block_.sync();
      if (first + P::tall < P::cols)
        tall_.fetch(block_.thread(), from, first + P::tall, 0);
      else
        next();
      multiply_sums<P>(weights + place_.row * P::score_stride + first, stage_ + 4 * place_.col, sums);
      block_.sync();
    }
  }

 private:
  const Block& block_;
  Place<P> place_;
  float* stage_;
  Chunk<T, P::cols, P::deep, P::threads> deep_;
  Chunk<T, P::tall, P::dim, P::threads> tall_;
};

/// A block's tile of queries. Neighbouring blocks share keys; under a causal mask the tiles that see most keys come first.
struct QueryTile {
  std::int64_t batch, head, first;
  int count;

  WEFT_DEVICE QueryTile(const Problem& problem, const Block& block, int most) {
    const auto index = static_cast<unsigned>(block.index()), heads = static_cast<unsigned>(problem.heads);
    const auto rest = index / heads, batches = static_cast<unsigned>(problem.batch);
    head = index % heads;
    batch = rest % batches;
    first = (ceil_div(problem.q_len, most) - 1 - rest / batches) * most;
    count = tile_size(problem.q_len - first, most);
  }
};

template <class P>
WEFT_DEVICE void clear(typename P::Sums& sums) {
  WEFT_UNROLL
  for (int i = 0; i < P::patch_rows; ++i) {
    WEFT_UNROLL
    for (int c = 0; c < 4 * P::patch_packs; ++c) sums[i][c] = 0;
  }
}

/// Writes this thread's sums, row i of them times factor(i).
template <class P, class T, class Factor>
WEFT_DEVICE void write_sums(const Place<P>& place, const typename P::Sums& sums, const Rows<T>& to, Factor&& factor) {
  WEFT_UNROLL
  for (int i = 0; i < P::patch_rows; ++i) {
    const int row = place.row + P::down * i;
    if (row >= to.count) continue;
    const float scale = factor(i);
    WEFT_UNROLL
    for (int j = 0; j < P::patch_packs; ++j) {
      const int col = 4 * (place.col + P::across * j);
      T* at = to.data + row * to.stride + col;
      Pack<T, 4> pack;
      WEFT_UNROLL
      for (int e = 0; e < 4; ++e) pack.at[e] = from_float<T>(sums[i][4 * j + e] * scale);
      if (to.packed) {
        if (col < to.dim) store_pack(at, pack);
      } else {
        WEFT_UNROLL
        for (int e = 0; e < 4; ++e)
          if (col + e < to.dim) at[e] = pack.at[e];
      }
    }
  }
}

}  // namespace weft::cuda::attention
