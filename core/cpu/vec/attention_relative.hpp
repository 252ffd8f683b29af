// Relative positions in attention's tiles: scores (q + v)·r_{i−j}, and what their gradient gives to q and r. A tile pair
// needs the band of distances from its last key's to its last query's. Scores read the band along the queries: neighbouring
// queries of one key have neighbouring distances, so a vector of them is a load at the key's own offset. In the other
// two products a tile of gradients is read along its diagonals, so that no zeros of a band matrix are multiplied but
// for those at the ends of a register block.
#pragma once
#include "core/cpu/vec/attention.hpp"

namespace weft::cpu::WEFT_ISA {

inline constexpr std::int64_t band = 2 * tile;           ///< distances of a tile pair, and one more
inline constexpr std::int64_t band_stride = band + 16;   ///< neighbouring rows begin at different sets of the cache
inline constexpr std::int64_t halo = micro_rows * tile;  ///< zeros around a tile that is read along its diagonals

/// Of query 0 of the tile pair and its key 0.
inline std::int64_t tile_distance(const AttentionArgs& a, std::int64_t q_tile, std::int64_t k_tile) {
  return a.q_begin - a.k_begin + (q_tile - k_tile) * tile;
}

/// A head's row of a bias [heads, head_dim].
inline const float* bias_of(const AttentionArgs& a, const float* bias, std::int64_t head) {
  return a.r ? bias + head * a.head_dim : nullptr;
}

/// Rows of distances that any tile pair of the problem has, from the furthest down: row 0 is of distance furthest().
struct Distances {
  std::int64_t q_tiles, rows, furthest;
  Distances(const AttentionArgs& a, const AttentionShape& s)
      : q_tiles(s.q_tiles), rows((s.q_tiles + s.k_tiles) * tile),
        furthest(a.q_begin - a.k_begin + s.q_tiles * tile - 1) {}
  /// Where the band of a tile pair begins: distance tile_distance + tile − 1.
  std::int64_t first_row(std::int64_t q_tile, std::int64_t k_tile) const {
    return (q_tiles - 1 - q_tile + k_tile) * tile;
  }
};

/// to[head_dim][band_stride] = r of distances first and on, transposed; zeros where there is none.
template <class T>
void pack_band(const AttentionArgs& a, std::int64_t head, std::int64_t first, float* to) {
  const T* r = static_cast<const T*>(a.r) + head * a.r_strides[1];
  for (std::int64_t at = 0; at < band; at += lanes) {
    const std::int64_t row = first - a.r_first + at;
    for (std::int64_t col = 0; col < a.head_dim; col += lanes) {
      const std::int64_t n = smaller(lanes, a.head_dim - col);
      Vec square[lanes];
      for (int i = 0; i < lanes; ++i) {
        const bool there = row + i >= 0 && row + i < a.r_len;
        const T* x = r + (there ? row + i : 0) * a.r_strides[0] + col;
        square[i] = !there ? Vec{} : (n == lanes ? load(x) : load_part(x, n));
      }
      transpose(square);
      for (std::int64_t j = 0; j < n; ++j) store(to + (col + j) * band_stride + at, square[j]);
    }
  }
}

/// to[rows][padded] = r of all distances, from the furthest down; zeros where there is none.
template <class T>
void pack_distances(const AttentionArgs& a, const Distances& distances, std::int64_t head, std::int64_t padded,
                    float* to) {
  const T* r = static_cast<const T*>(a.r) + head * a.r_strides[1];
  for (std::int64_t row = 0; row < distances.rows; ++row) {
    const std::int64_t from = distances.furthest - row - a.r_first;
    if (from >= 0 && from < a.r_len)
      pack_rows(r + from * a.r_strides[0], 0, 1, a.head_dim, padded, to + row * padded);
    else
      for (std::int64_t i = 0; i < padded; i += lanes) store(to + row * padded + i, Vec{});
  }
}

/// c[i][j·lanes ..] += q·r over rows of `depth`, where key i's distances begin i before those of key 0.
template <int rows, int vecs>
void micro_relative(const float* q, const float* r, std::int64_t depth, float* c) {
  Vec acc[rows][vecs];
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) acc[i][j] = load(c + i * tile + j * lanes);
  for (std::int64_t k = 0; k < depth; ++k, q += tile, r += band_stride) {
    Vec right[vecs];
#pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) right[j] = load(q + j * lanes);
#pragma GCC unroll 8
    for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
      for (int j = 0; j < vecs; ++j) acc[i][j] = fma(load(r - i + j * lanes), right[j], acc[i][j]);
  }
#pragma GCC unroll 8
  for (int i = 0; i < rows; ++i)
#pragma GCC unroll 4
    for (int j = 0; j < vecs; ++j) store(c + i * tile + j * lanes, acc[i][j]);
}

template <int rows>
void relative_rows(const float* q, const float* r, std::int64_t depth, float* c, std::int64_t cols) {
  std::int64_t col = 0;
  for (; col + micro_vecs * lanes <= cols; col += micro_vecs * lanes)
    micro_relative<rows, micro_vecs>(q + col, r + col, depth, c + col);
  for (; col < cols; col += lanes) micro_relative<rows, 1>(q + col, r + col, depth, c + col);
}

/// c[key][query] += (q + v)·r of their distance, for the queries that see the key. queries [depth][tile], distances
/// [depth][band_stride] from tile_distance − (tile − 1) on.
inline void add_relative_scores(const TilePair& pair, const float* queries, const float* distances, std::int64_t depth,
                                float* c) {
  for (std::int64_t key = 0; key < pair.keys; key += micro_rows) {
    const std::int64_t from = pair.first_query(key) / lanes * lanes, cols = pair.padded() - from;
    if (cols <= 0) return;
    const float *q = queries + from, *r = distances + tile - 1 + from - key;
    float* to = c + key * tile + from;
    switch (smaller(micro_rows, pair.keys - key)) {
      case 6: relative_rows<6>(q, r, depth, to, cols); break;
      case 5: relative_rows<5>(q, r, depth, to, cols); break;
      case 4: relative_rows<4>(q, r, depth, to, cols); break;
      case 3: relative_rows<3>(q, r, depth, to, cols); break;
      case 2: relative_rows<2>(q, r, depth, to, cols); break;
      default: relative_rows<1>(q, r, depth, to, cols);
    }
  }
}

/// c[query][col] += Σ_key a[key][query]·r[distance][col], r from distance tile_distance + tile − 1 down. a has a halo of
/// zeros, and zeros where a query does not see a key.
inline void sum_over_distances(const TilePair& pair, const float* a, const float* r, std::int64_t cols, float* c) {
  for (std::int64_t query = 0; query < pair.queries; query += micro_rows) {
    const std::int64_t rows = smaller(micro_rows, pair.queries - query), more = rows - 1;
    const std::int64_t keys = pair.visible_keys(query + more);
    if (keys == 0) continue;
    product_rows<Left::falling, Into::add>(rows, a + query - more * tile, tile, r + (tile - 1 - query - more) * cols,
                                           cols, keys + more, c + query * cols, cols, cols);
  }
}

/// c[distance][col] += Σ_query a[query − distance][query]·b[query][col], distances as above; a as above.
inline void sum_along_distances(const TilePair& pair, const float* a, const float* b, std::int64_t cols, float* c) {
  const std::int64_t end = smaller(tile - 1 + pair.keys, tile - pair.shift);
  for (std::int64_t at = tile - pair.queries; at < end; at += micro_rows) {
    const std::int64_t rows = smaller(micro_rows, end - at);
    const std::int64_t from = larger(0, tile - at - rows), to = smaller(pair.queries, tile - 1 - at + pair.keys);
    product_rows<Left::rising, Into::add>(rows, a + (at - tile + 1) * tile + from * (tile + 1), tile, b + from * cols,
                                          cols, to - from, c + at * cols, cols, cols);
  }
}

}  // namespace weft::cpu::WEFT_ISA
