// How items, heads and tokens are shared out over ranks. Sizes that the ranks do not divide differ by one.
#pragma once
#include <cstdint>
#include <string>
#include <vector>

#include "core/base/range.hpp"
#include "core/kernels/dropout.hpp"

namespace weft {

/// Part `index` of `parts` of [0, total).
constexpr Range share_of(std::int64_t total, int parts, int index) {
  return {total * index / parts, total * (index + 1) / parts};
}

/// One rank's heads. Its query heads share its key-value heads evenly.
struct HeadShare {
  Range heads, kv_heads;
  int copies = 1;  ///< neighbouring ranks that hold the same key-value head
  int copy = 0;    ///< this rank's place among them
};

/// Whether heads, of which heads / kv_heads share a key-value head, can be spread over so many ranks: no more than there
/// are key-value heads, or a multiple of these up to the number of heads.
bool heads_fit(std::int64_t heads, std::int64_t kv_heads, int ranks);
/// All numbers of ranks that fit, "1, 2, 4 or 8".
std::string fitting_tp(std::int64_t heads, std::int64_t kv_heads);
/// Throws Error where they do not fit.
HeadShare share_heads(std::int64_t heads, std::int64_t kv_heads, int ranks, int rank);

/// How the tokens of a sequence lie over ranks: one interval each, or two under causal ring attention, of which rank 0 has the
/// first and the last, rank 1 the second and the last but one and so on inwards, so that all ranks have the same work (the
/// zigzag order of Llama 3's context parallelism).
enum class TokenOrder : std::uint8_t { contiguous, zigzag };

/// The token map of one rank's part of sequences of `seq` tokens. Parts differ by one token at most; an interval that is
/// empty, or follows upon the first, is no second one.
TokenMap share_tokens(std::int64_t seq, TokenOrder order, int ranks, int rank);
/// The intervals of a token map that are not empty, as global positions.
std::vector<Range> token_intervals(const TokenMap& tokens);

}  // namespace weft
