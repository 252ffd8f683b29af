// Rows in the order of their tokens, found on the device: a stable radix sort, whose result does not depend on how threads
// run.
#pragma once
#include <bit>

#include "core/cuda/device/block.hpp"
#include "core/cuda/launch.hpp"

namespace weft::cuda {

/// The tokens of rows.
struct TokenIds {
  const std::int32_t* tokens;
  std::int64_t vocabulary;   ///< tokens of the table, from `begin` on
  std::int64_t begin, size;  ///< size: of all shards' tables together

  /// A row of the table, in [0, vocabulary); `vocabulary` for a token that is not in there.
  WEFT_DEVICE std::int64_t id(std::int64_t row) const {
    const std::int64_t token = tokens[row] - begin;
    return token >= 0 && token < vocabulary ? token : vocabulary;
  }
  /// Whether some shard has it.
  WEFT_DEVICE bool exists(std::int64_t row) const { return tokens[row] >= 0 && tokens[row] < size; }
};

namespace order {

constexpr int digit_bits = 6, digits = 1 << digit_bits;
constexpr int sort_threads = 128, rows_each = 8;
constexpr std::int64_t tile = sort_threads * rows_each;  // rows of a block

/// A thread's neighbouring rows of the order so far, and their tokens' digits at `shift`. `from` null: rows as they are.
struct OwnRows {
  std::int32_t row[rows_each] = {};
  int digit[rows_each] = {};
  int count;

  WEFT_DEVICE OwnRows(const Block& block, const TokenIds& ids, const std::int32_t* from, std::int64_t rows, int shift) {
    const std::int64_t first = block.index() * tile + block.thread() * rows_each;
    count = first >= rows ? 0 : rows - first < rows_each ? static_cast<int>(rows - first) : rows_each;
    WEFT_UNROLL
    for (int i = 0; i < rows_each; ++i)
      if (i < count) row[i] = from ? from[first + i] : static_cast<std::int32_t>(first + i);
    WEFT_UNROLL
    for (int i = 0; i < rows_each; ++i)
      if (i < count) digit[i] = static_cast<int>(ids.id(row[i]) >> shift) & (digits - 1);
  }
};

/// counts [tiles, digits]: how often each digit comes in a tile.
struct CountDigits {
  static constexpr int threads = sort_threads;
  static constexpr std::size_t shared_bytes = digits * sizeof(std::uint32_t);
  TokenIds ids;
  const std::int32_t* from;
  std::uint32_t* counts;
  std::int64_t rows;
  int shift;

  WEFT_DEVICE void operator()(const Block& block) const {
    auto* found = block.shared<std::uint32_t>();
    if (block.thread() < digits) found[block.thread()] = 0;
    block.sync();
    const OwnRows own(block, ids, from, rows, shift);
    WEFT_UNROLL
    for (int i = 0; i < rows_each; ++i)
      if (i < own.count) block.atomic_add(found + own.digit[i], std::uint32_t{1});
    block.sync();
    if (block.thread() < digits) counts[block.index() * digits + block.thread()] = found[block.thread()];
  }
};

/// Puts each row behind all rows of lower digits, and those of its digit that came before it.
struct PlaceRows {
  static constexpr int threads = sort_threads;
  struct Shared {
    std::uint32_t total[digits];                  // of all tiles
    std::uint32_t place[digits];                  // of this tile's first row of a digit
    std::uint16_t before[sort_threads * digits];  // of this tile, a digit's rows in earlier threads
  };
  TokenIds ids;
  const std::int32_t* from;
  std::int32_t* to;
  const std::uint32_t* counts;
  std::int64_t rows;
  int shift;

  WEFT_DEVICE void operator()(const Block& block) const {
    auto& shared = *block.shared<Shared>();
    const int thread = block.thread();
    std::uint16_t* own_before = shared.before + thread * digits;
    for (int i = thread; i < sort_threads * digits; i += threads) shared.before[i] = 0;
    const OwnRows own(block, ids, from, rows, shift);
    block.sync();
    WEFT_UNROLL
    for (int i = 0; i < rows_each; ++i)
      if (i < own.count) ++own_before[own.digit[i]];
    block.sync();
    std::uint32_t earlier = 0;
    if (thread < digits) {
      unsigned sum = 0;
      for (int other = 0; other < threads; ++other) {
        const unsigned here = shared.before[other * digits + thread];
        shared.before[other * digits + thread] = static_cast<std::uint16_t>(sum);
        sum += here;
      }
      std::uint32_t total = 0;
      for (std::int64_t at = 0; at < block.blocks(); ++at) {
        const std::uint32_t here = counts[at * digits + thread];
        if (at < block.index()) earlier += here;
        total += here;
      }
      shared.total[thread] = total;
    }
    block.sync();
    if (thread < digits) {
      std::uint32_t place = earlier;
      for (int digit = 0; digit < thread; ++digit) place += shared.total[digit];
      shared.place[thread] = place;
    }
    block.sync();
    WEFT_UNROLL
    for (int i = 0; i < rows_each; ++i)
      if (i < own.count) to[shared.place[own.digit[i]] + own_before[own.digit[i]]++] = own.row[i];
  }
};

inline std::size_t rows_bytes(std::int64_t rows) {
  return static_cast<std::size_t>(ceil_div(rows, 16)) * 16 * sizeof(std::int32_t);
}

}  // namespace order

/// Bytes of scratch that order_rows wants, a multiple of 64.
inline std::size_t row_order_bytes(std::int64_t rows) {
  return 2 * order::rows_bytes(rows) +
         static_cast<std::size_t>(ceil_div(rows, order::tile) * order::digits) * sizeof(std::uint32_t);
}

/// Rows 0 to rows − 1 in the order of their ids, rows of one id in their own; somewhere in `scratch`.
inline const std::int32_t* order_rows(ExecContext& exec, const TokenIds& ids, std::int64_t rows, void* scratch) {
  WEFT_CHECK(rows <= 0x7fffffff, "{} rows", rows);
  auto* bytes = static_cast<char*>(scratch);
  std::int32_t* places[2] = {reinterpret_cast<std::int32_t*>(bytes),
                             reinterpret_cast<std::int32_t*>(bytes + order::rows_bytes(rows))};
  auto* counts = reinterpret_cast<std::uint32_t*>(bytes + 2 * order::rows_bytes(rows));
  const std::int32_t* from = nullptr;
  const int bits = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(ids.vocabulary) | 1));
  const std::int64_t tiles = ceil_div(rows, order::tile);
  for (int shift = 0; shift < bits; shift += order::digit_bits) {
    std::int32_t* to = places[shift / order::digit_bits % 2];
    launch(exec, tiles, order::CountDigits{ids, from, counts, rows, shift}, order::CountDigits::shared_bytes);
    launch(exec, tiles, order::PlaceRows{ids, from, to, counts, rows, shift}, sizeof(order::PlaceRows::Shared));
    from = to;
  }
  return from;
}

}  // namespace weft::cuda
