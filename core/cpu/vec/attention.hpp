// What attention's forward and backward share: tiles, register-blocked products on them, packing and dropout factors.
//
// Scores are held transposed: a tile is Sᵀ[key][query] with vectors along the queries. The softmax's maxima and sums
// are then plain vector operations, keys and values are read by broadcast from their natural order, and only queries
// (and dout) are transposed, once each.
#pragma once
#include "core/cpu/vec/philox.hpp"

namespace weft::cpu::WEFT_ISA {

inline constexpr std::int64_t tile = 64;  ///< queries and keys of a tile
inline constexpr float log2_e = 1.44269504088896341f;

enum class Into { replace, add, rescale };

inline constexpr int micro_rows = 6, micro_vecs = lanes == 16 ? 4 : 2;

/// How a product reads its left operand A(row, k): by rows a[row·lda + k], by columns a[k·lda + row], or along the diagonals
/// of a matrix that is stored by columns: falling a[k·lda + row·(lda + 1)], rising a[k·(lda + 1) + row·lda].
enum class Left { rows, columns, falling, rising };

template <Left left>
WEFT_INLINE std::int64_t left_offset(std::int64_t row, std::int64_t k, std::int64_t lda) {
  if constexpr (left == Left::rows) return row * lda + k;
  if constexpr (left == Left::columns) return k * lda + row;
  if constexpr (left == Left::falling) return k * lda + row * (lda + 1);
  return k * (lda + 1) + row * lda;
}

/// C[rows × vecs] (=, += or = factor[row]·C +) A·B, accumulated in registers.
template <int rows, int vecs, Left side, Into into>
void micro_product(const float* a, std::int64_t lda, const float* b, std::int64_t ldb, std::int64_t depth, float* c,
                   std::int64_t ldc, const float* factor) {
  Vec acc[rows][vecs];
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) {
      if constexpr (into == Into::replace) acc[i][j] = Vec{};
      if constexpr (into == Into::add) acc[i][j] = load(c + i * ldc + j * lanes);
      if constexpr (into == Into::rescale) acc[i][j] = load(c + i * ldc + j * lanes) * factor[i];
    }
  for (std::int64_t k = 0; k < depth; ++k) {
    Vec right[vecs];
#pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) right[j] = load(b + k * ldb + j * lanes);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i) {
      const Vec left = splat(a[left_offset<side>(i, k, lda)]);
#pragma GCC unroll 4
      for (int j = 0; j < vecs; ++j) acc[i][j] = fma(left, right[j], acc[i][j]);
    }
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) store(c + i * ldc + j * lanes, acc[i][j]);
}

/// One band of `rows` <= micro_rows rows over columns [0, cols), a multiple of lanes.
template <int rows, Left side, Into into>
void product_band(const float* a, std::int64_t lda, const float* b, std::int64_t ldb, std::int64_t depth, float* c,
                  std::int64_t ldc, std::int64_t cols, const float* factor) {
  std::int64_t col = 0;
  for (; col + micro_vecs * lanes <= cols; col += micro_vecs * lanes)
    micro_product<rows, micro_vecs, side, into>(a, lda, b + col, ldb, depth, c + col, ldc, factor);
  if constexpr (micro_vecs == 4) {
    if (cols - col == 3 * lanes)
      return micro_product<rows, 3, side, into>(a, lda, b + col, ldb, depth, c + col, ldc, factor);
    if (cols - col == 2 * lanes)
      return micro_product<rows, 2, side, into>(a, lda, b + col, ldb, depth, c + col, ldc, factor);
  }
  if (col < cols) micro_product<rows, 1, side, into>(a, lda, b + col, ldb, depth, c + col, ldc, factor);
}

template <Left side, Into into>
void product_rows(std::int64_t rows, const float* a, std::int64_t lda, const float* b, std::int64_t ldb,
                  std::int64_t depth, float* c, std::int64_t ldc, std::int64_t cols, const float* factor = nullptr) {
  switch (rows) {
    case 6: return product_band<6, side, into>(a, lda, b, ldb, depth, c, ldc, cols, factor);
    case 5: return product_band<5, side, into>(a, lda, b, ldb, depth, c, ldc, cols, factor);
    case 4: return product_band<4, side, into>(a, lda, b, ldb, depth, c, ldc, cols, factor);
    case 3: return product_band<3, side, into>(a, lda, b, ldb, depth, c, ldc, cols, factor);
    case 2: return product_band<2, side, into>(a, lda, b, ldb, depth, c, ldc, cols, factor);
    default: return product_band<1, side, into>(a, lda, b, ldb, depth, c, ldc, cols, factor);
  }
}

/// One (query tile, key tile) and what of it a causal mask leaves: query i sees key j when i >= j + shift.
struct TilePair {
  std::int64_t queries, keys;  ///< 1 .. tile
  std::int64_t shift;          ///< very negative without a mask
  std::int64_t padded() const { return round_up(queries, lanes); }
  bool masked() const { return keys - 1 + shift > 0; }
  /// The first query that sees key j, at most `tile`.
  std::int64_t first_query(std::int64_t key) const { return smaller(larger(key + shift, 0), tile); }
  /// How many of the tile's keys query i sees.
  std::int64_t visible_keys(std::int64_t query) const { return larger(0, smaller(keys, query - shift + 1)); }
};

/// c[key][query] = a[key]·bᵀ with b transposed to [depth][tile], for the queries that see the key; others are not
/// written.
inline void scores(const TilePair& pair, const float* a, std::int64_t lda, const float* b, std::int64_t depth,
                   float* c) {
  for (std::int64_t key = 0; key < pair.keys; key += micro_rows) {
    const std::int64_t from = pair.first_query(key) / lanes * lanes;
    if (from >= pair.padded()) return;
    product_rows<Left::rows, Into::replace>(smaller(micro_rows, pair.keys - key), a + key * lda, lda, b + from, tile,
                                            depth, c + key * tile + from, tile, pair.padded() - from);
  }
}

/// c[query][col] (into) Σ_key a[key][query]·b[key][col].
template <Into into>
inline void sum_over_keys(const TilePair& pair, const float* a, const float* b, std::int64_t cols, float* c,
                          const float* factor = nullptr) {
  for (std::int64_t query = 0; query < pair.queries; query += micro_rows) {
    const std::int64_t rows = smaller(micro_rows, pair.queries - query);
    product_rows<Left::columns, into>(rows, a + query, tile, b, cols, pair.visible_keys(query + rows - 1),
                                      c + query * cols, cols, cols, factor + (factor ? query : 0));
  }
}

/// c[key][col] += Σ_query a[key][query]·b[query][col].
inline void sum_over_queries(const TilePair& pair, const float* a, const float* b, std::int64_t cols, float* c) {
  for (std::int64_t key = 0; key < pair.keys; key += micro_rows) {
    const std::int64_t from = pair.first_query(key);
    if (from >= pair.queries) return;
    product_rows<Left::rows, Into::add>(smaller(micro_rows, pair.keys - key), a + key * tile + from, tile,
                                        b + from * cols, cols, pair.queries - from, c + key * cols, cols, cols);
  }
}

/// to[rows][padded] = from + bias[cols], if there is one, with zeros behind `cols`.
template <class T>
void pack_rows(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t cols, std::int64_t padded, float* to,
               const float* bias = nullptr) {
  for (std::int64_t row = 0; row < rows; ++row) {
    const T* x = from + row * stride;
    float* y = to + row * padded;
    std::int64_t i = 0;
    for (; i + lanes <= cols; i += lanes) store(y + i, bias ? load(x + i) + load(bias + i) : load(x + i));
    if (i == padded) continue;
    const Vec rest = load_part(x + i, cols - i);
    store(y + i, bias ? rest + load_part(bias + i, cols - i) : rest);
  }
}

/// to[cols][tile] = (from + bias[cols], if there is one)ᵀ, of no meaning behind `rows` but for a next multiple of lanes of
/// finite numbers.
template <class T>
void pack_transposed(const T* from, std::int64_t stride, std::int64_t rows, std::int64_t cols, float* to,
                     const float* bias = nullptr) {
  for (std::int64_t row = 0; row < rows; row += lanes)
    for (std::int64_t col = 0; col < cols; col += lanes) {
      const std::int64_t n = smaller(lanes, cols - col);
      Vec square[lanes];
      for (int i = 0; i < lanes; ++i) {
        const T* x = from + (row + i) * stride + col;
        square[i] = row + i >= rows ? Vec{} : (n == lanes ? load(x) : load_part(x, n));
      }
      transpose(square);
      for (std::int64_t j = 0; j < n; ++j)
        store(to + (col + j) * tile + row, bias ? square[j] + bias[col + j] : square[j]);
    }
}

/// The numbers 0, 1, …
WEFT_INLINE VecI lane_numbers() {
  VecI v{};
  for (int i = 0; i < lanes; ++i) v[i] = i;
  return v;
}

/// Where the scratch of a task ends; `take` hands out aligned pieces.
struct Arena {
  char* next;
  float* take(std::int64_t floats) {
    float* piece = reinterpret_cast<float*>(next);
    next += round_up(floats * static_cast<std::int64_t>(sizeof(float)), 64);
    return piece;
  }
};

/// Sizes that follow from the arguments.
struct AttentionShape {
  std::int64_t group, padded_dim, q_tiles, k_tiles;
  explicit AttentionShape(const AttentionArgs& a)
      : group(a.heads / a.kv_heads), padded_dim(round_up(a.head_dim, lanes)), q_tiles((a.q_len + tile - 1) / tile),
        k_tiles((a.k_len + tile - 1) / tile) {}
};

inline TilePair tile_pair(const AttentionArgs& a, std::int64_t q_tile, std::int64_t k_tile) {
  const std::int64_t q0 = q_tile * tile, k0 = k_tile * tile;
  return {smaller(tile, a.q_len - q0), smaller(tile, a.k_len - k0),
          a.causal ? a.k_begin + k0 - a.q_begin - q0 : -2 * tile};
}

/// factors[key][query] of the probabilities' dropout, for the keys that a vector of queries sees.
inline void dropout_tile(const AttentionArgs& a, std::int64_t b, std::int64_t head, std::int64_t q_tile,
                         std::int64_t k_tile, const TilePair& pair, float* factors) {
  DropoutRun runs[lanes];
  const std::int64_t plane = (a.first_sequence + b) * a.heads_global + a.head_begin + head;
  const std::int64_t k0 = a.k_begin + k_tile * tile;
  for (std::int64_t query = 0; query < pair.queries; query += lanes) {
    const std::int64_t keys = pair.visible_keys(query + lanes - 1);
    const float* rows[lanes];
    for (int i = 0; i < lanes; ++i) {
      const std::int64_t q = a.q_begin + q_tile * tile + query + i;
      const auto index = static_cast<std::uint64_t>((plane * a.seq_global + q) * a.seq_global + k0);
      rows[i] = dropout_factors(a.dropout_rule, index, keys, runs[i]);
    }
    for (std::int64_t key = 0; key < keys; key += lanes) {
      Vec square[lanes];
      for (int i = 0; i < lanes; ++i) square[i] = load(rows[i] + key);
      transpose(square);
      for (int j = 0; j < lanes; ++j) store(factors + (key + j) * tile + query, square[j]);
    }
  }
}

}  // namespace weft::cpu::WEFT_ISA
