// Relative positions in attention's tiles. A tile of scores from (q0, k0) on needs rows r of the distances from its last
// key's to its last query's: a band, which is multiplied in chunks of as many distances as a tile has columns. The products
// lie in shared memory, a plane a chunk, where score (query, key) reads distance query − key.
//
// H heads, D head size, L distances.
#pragma once
#include "core/cuda/kernels/attention_tiles.hpp"

namespace weft::cuda::attention {

/// Rows of queries, to which a bias is added as they are read.
template <class T>
struct BiasedRows : Rows<T> {
  const float* added;  // [D]
  WEFT_DEVICE const float* bias() const { return added; }
};

/// Rows from a place that may lie before the first one; those are read as zeros.
template <class T>
struct WindowRows : Rows<T> {
  int least;
  WEFT_DEVICE bool holds(int row) const { return row >= least && row < this->count; }
};

/// The window of at most `most` of `length` rows of one head from row `first` on, which may be negative or beyond the end.
template <class T>
WEFT_DEVICE WindowRows<T> window(const Operand<T>& from, std::int64_t batch, std::int64_t head, std::int64_t first,
                                 std::int64_t length, int most) {
  const std::int64_t left = length - first;
  WindowRows<T> rows;
  static_cast<Rows<T>&>(rows) = from.rows(batch, head, 0, left < 0 ? 0 : tile_size(left, most));
  rows.data += first * rows.stride;
  rows.least = first >= 0 ? 0 : (first < -most ? most : static_cast<int>(-first));
  return rows;
}

struct NoPositions {
  static constexpr bool relative = false;
};

template <class T>
struct Positions {
  static constexpr bool relative = true;

  Operand<const T> r;                      // [1, L, H, D]
  std::int64_t first, count;               // distance of row 0, and L
  const float *content_bias, *place_bias;  // [H, D]

  WEFT_DEVICE BiasedRows<const T> for_content(const Rows<const T>& q, std::int64_t head) const {
    return {q, content_bias + head * q.dim};
  }
  WEFT_DEVICE BiasedRows<const T> for_place(const Rows<const T>& q, std::int64_t head) const {
    return {q, place_bias + head * q.dim};
  }
  WEFT_DEVICE WindowRows<const T> distances(std::int64_t head, std::int64_t from, int most) const {
    return window(r, 0, head, from - first, count, most);
  }
};

/// Host.
template <class T>
Positions<T> positions_of(const RelativePositions& positions) {
  View r = positions.r;
  r.shape = {1, r.shape[0], r.shape[1], r.shape[2]};
  r.strides = {0, positions.r.strides[0], positions.r.strides[1], positions.r.strides[2]};
  return {operand<T, pack_width<T>>(r), positions.first, r.shape[1],
          static_cast<const float*>(positions.content_bias.data), static_cast<const float*>(positions.place_bias.data)};
}

/// Products with the band of a tile, one plane for each chunk of P::cols distances. `P::rows` are queries, P::cols keys (or,
/// where both are as many, the other way round).
template <class P>
struct Band {
  static constexpr int chunks = (P::rows + 2 * P::cols - 2) / P::cols;
  static constexpr int floats = chunks * P::score_floats;

  float* planes;

  /// The distance of the band's first element: of query 0 and the last key.
  WEFT_DEVICE static std::int64_t first_distance(const Problem& problem, std::int64_t q0, std::int64_t k0) {
    return problem.q_begin + q0 - problem.k_begin - k0 - (P::cols - 1);
  }
  WEFT_DEVICE float* plane(int chunk) const { return planes + chunk * P::score_floats; }
  WEFT_DEVICE float& at(int row, int element) const {
    return planes[element / P::cols * P::score_floats + row * P::score_stride + element % P::cols];
  }
  WEFT_DEVICE void put(const Place<P>& place, const typename P::Scores& s, int chunk) const {
    float* to = plane(chunk);
    for_scores<P>(place, [&](int i, int j, int row, int col) { to[row * P::score_stride + col] = s[i][j]; });
  }
};

}  // namespace weft::cuda::attention
