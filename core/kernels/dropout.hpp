// Dropout whose mask depends only on (seed, step, layer) and the element's global position, never on the layout.
#pragma once
#include <array>
#include <cstdint>

#include "core/base/philox.hpp"
#include "core/kernels/slot.hpp"

namespace weft {

/// Which rows of a batch are held here: all of them, or `run` rows of every `stride`, from row `begin` on.
struct RowShare {
  std::int64_t begin = 0, run = 0, stride = 0;  ///< run 0: all rows

  constexpr std::int64_t row(std::int64_t local) const {
    return run == 0 ? local : local / run * stride + begin + local % run;
  }
};

/// Where local token rows stand in the global batch. Local row r is token r mod seq_local of sequence r / seq_local; a
/// rank holds one or two intervals of each sequence (two under balanced ring attention).
struct TokenMap {
  std::int64_t first_sequence = 0;             ///< global index in the batch of the first local sequence
  std::int64_t seq_global = 1;                 ///< tokens of a whole sequence
  std::int64_t seq_local = 1;                  ///< tokens of it held here
  std::array<std::int64_t, 2> begin{0, 0};     ///< global position of each interval's first token
  std::int64_t first_length = 1;               ///< tokens in the first interval; the rest are in the second
  RowShare share = {};                         ///< of those rows; only global_row() reads it

  constexpr std::int64_t position(std::int64_t local_token) const {
    return local_token < first_length ? begin[0] + local_token : begin[1] + local_token - first_length;
  }
  constexpr std::int64_t global_row(std::int64_t local_row) const {
    const std::int64_t row = share.row(local_row);
    return (first_sequence + row / seq_local) * seq_global + position(row % seq_local);
  }
};

/// Keep an element and scale it by 1/(1−p) if uniform(word) >= p, where word = philox_word(*key, global index) and the
/// global index is global_row(row)·cols_global + col_begin + col. p = 0 means no dropout, and key is not read.
struct DropoutSpec {
  float p = 0;
  const PhiloxKey* key = nullptr;  ///< in device memory
  TokenMap rows;
  std::int64_t cols_global = 0;
  std::int64_t col_begin = 0;
};

struct DropoutKernels {
  /// y = dropout(x); the same call on dy is the backward.
  Slot<void(View x, DropoutSpec spec, MutView y)> apply{"dropout.apply"};
};

}  // namespace weft
