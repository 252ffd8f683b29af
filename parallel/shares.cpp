#include "parallel/shares.hpp"

#include "core/base/error.hpp"

namespace weft {

bool heads_fit(std::int64_t heads, std::int64_t kv_heads, int ranks) {
  return ranks <= kv_heads || (ranks % kv_heads == 0 && ranks <= heads);
}

std::string fitting_tp(std::int64_t heads, std::int64_t kv_heads) {
  std::vector<std::int64_t> fitting;
  for (std::int64_t ranks = 1; ranks <= heads; ++ranks)
    if (heads_fit(heads, kv_heads, static_cast<int>(ranks))) fitting.push_back(ranks);
  // Long runs of neighbours (as many as there are key-value heads) are told by their ends.
  std::string text;
  for (std::size_t i = 0; i < fitting.size();) {
    std::size_t end = i + 1;
    while (end < fitting.size() && fitting[end] == fitting[end - 1] + 1) ++end;
    if (i > 0) text += end == fitting.size() ? " or " : ", ";
    text += end - i > 2 ? fmt::format("{} to {}", fitting[i], fitting[end - 1]) : std::to_string(fitting[i]);
    i = end - i > 2 ? end : i + 1;
  }
  return text;
}

HeadShare share_heads(std::int64_t heads, std::int64_t kv_heads, int ranks, int rank) {
  WEFT_CHECK(heads_fit(heads, kv_heads, ranks), "{} heads with {} key-value heads over {} ranks", heads, kv_heads,
             ranks);
  const std::int64_t group = heads / kv_heads;
  HeadShare share;
  if (ranks <= kv_heads) {
    share.kv_heads = share_of(kv_heads, ranks, rank);
    share.heads = {share.kv_heads.begin * group, share.kv_heads.end * group};
    return share;
  }
  share.copies = static_cast<int>(ranks / kv_heads);
  share.copy = rank % share.copies;
  const std::int64_t kv = rank / share.copies;
  share.kv_heads = {kv, kv + 1};
  const Range part = share_of(group, share.copies, share.copy);
  share.heads = {kv * group + part.begin, kv * group + part.end};
  return share;
}

TokenMap share_tokens(std::int64_t seq, TokenOrder order, int ranks, int rank) {
  Range first = share_of(seq, ranks, rank), second;
  if (order == TokenOrder::zigzag) {
    // Each rank's share in two halves: the front ones from the start on, the back ones from the end back.
    Range front, back{seq, seq};
    for (int i = 0; i <= rank; ++i) {
      const std::int64_t share = share_of(seq, ranks, i).size(), half = (share + 1) / 2;
      front = {front.end, front.end + half};
      back = {back.begin - (share - half), back.begin};
    }
    first = front;
    second = back;
    if (first.end == second.begin) {
      first.end = second.end;
      second = {};
    }
  }
  TokenMap tokens;
  tokens.seq_global = seq;
  tokens.seq_local = first.size() + second.size();
  tokens.begin = {first.begin, second.begin};
  tokens.first_length = first.size();
  return tokens;
}

std::vector<Range> token_intervals(const TokenMap& tokens) {
  std::vector<Range> intervals;
  const auto add = [&](std::int64_t begin, std::int64_t length) {
    if (length > 0) intervals.push_back({begin, begin + length});
  };
  add(tokens.begin[0], tokens.first_length);
  add(tokens.begin[1], tokens.seq_local - tokens.first_length);
  return intervals;
}

}  // namespace weft
