#include "parallel/shares.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>

#include "parallel/layers/sequence_attention.hpp"

namespace weft {
namespace {

TEST(ShareTokens, EveryTokenIsOnOneRankAndSharesDifferByOne) {
  for (const TokenOrder order : {TokenOrder::contiguous, TokenOrder::zigzag})
    for (const int ranks : {1, 2, 3, 5, 8})
      for (const std::int64_t seq : {8, 9, 16, 23, 100, 1001}) {
        std::map<std::int64_t, int> seen;
        std::int64_t least = seq, most = 0;
        for (int rank = 0; rank < ranks; ++rank) {
          const TokenMap tokens = share_tokens(seq, order, ranks, rank);
          EXPECT_EQ(tokens.seq_global, seq);
          for (std::int64_t t = 0; t < tokens.seq_local; ++t) ++seen[tokens.position(t)];
          std::int64_t listed = 0;
          for (const Range& interval : token_intervals(tokens)) listed += interval.size();
          EXPECT_EQ(listed, tokens.seq_local);
          least = std::min(least, tokens.seq_local);
          most = std::max(most, tokens.seq_local);
        }
        EXPECT_EQ(static_cast<std::int64_t>(seen.size()), seq);
        for (const auto& [position, times] : seen) EXPECT_EQ(times, 1) << position;
        EXPECT_EQ(seen.begin()->first, 0);
        EXPECT_GE(least, 1);
        EXPECT_LE(most - least, 1);
      }
}

TEST(ShareTokens, ZigzagRanksSeeAsManyPairsEach) {
  constexpr int ranks = 4;
  std::vector<std::int64_t> pairs;
  for (int rank = 0; rank < ranks; ++rank) {
    const TokenMap tokens = share_tokens(64, TokenOrder::zigzag, ranks, rank);
    std::int64_t& sum = pairs.emplace_back(0);
    for (std::int64_t t = 0; t < tokens.seq_local; ++t) sum += tokens.position(t) + 1;
  }
  EXPECT_THAT(pairs, testing::Each(testing::Eq(64 * 65 / 2 / ranks)));
}

TEST(ShareHeads, EveryHeadIsOnOneRankWithItsKeyValueHead) {
  for (const auto& [heads, kv_heads] :
       std::vector<std::pair<std::int64_t, std::int64_t>>{{12, 12}, {12, 4}, {12, 2}, {6, 1}})
    for (int ranks = 1; ranks <= 13; ++ranks) {
      if (!heads_fit(heads, kv_heads, ranks)) {
        EXPECT_TRUE(ranks > heads || (ranks > kv_heads && ranks % kv_heads != 0));
        continue;
      }
      std::int64_t next = 0;
      std::map<std::int64_t, int> holders;
      for (int rank = 0; rank < ranks; ++rank) {
        const HeadShare share = share_heads(heads, kv_heads, ranks, rank);
        EXPECT_EQ(share.heads.begin, next);
        next = share.heads.end;
        ASSERT_GE(share.heads.size(), 1);
        EXPECT_EQ(share.heads.size() % share.kv_heads.size(), 0);
        const std::int64_t group = heads / kv_heads;
        EXPECT_EQ(share.heads.begin / group, share.kv_heads.begin);
        EXPECT_EQ((share.heads.end - 1) / group, share.kv_heads.end - 1);
        for (std::int64_t kv = share.kv_heads.begin; kv < share.kv_heads.end; ++kv)
          EXPECT_EQ(share.copy, holders[kv]++);
      }
      EXPECT_EQ(next, heads);
      for (const auto& [kv, count] : holders) EXPECT_EQ(count, share_heads(heads, kv_heads, ranks, 0).copies) << kv;
    }
}

TEST(ShareHeads, WhatFitsIsToldInWords) {
  EXPECT_EQ(fitting_tp(6, 6), "1 to 6");
  EXPECT_EQ(fitting_tp(8, 2), "1, 2, 4, 6 or 8");
  EXPECT_EQ(fitting_tp(1, 1), "1");
  EXPECT_EQ(fitting_tp(12, 4), "1 to 4, 8 or 12");
}

TEST(ChooseSequenceAttention, TakesTheOneThatMovesFewerBytesAndFits) {
  EXPECT_EQ(choose_sequence_attention(8, 8, 1, 2), SequenceAttention::ring);
  EXPECT_EQ(choose_sequence_attention(8, 8, 1, 4), SequenceAttention::exchange);
  EXPECT_EQ(choose_sequence_attention(8, 8, 4, 4), SequenceAttention::ring);
  EXPECT_EQ(choose_sequence_attention(8, 2, 1, 4), SequenceAttention::ring);
  EXPECT_EQ(choose_sequence_attention(8, 2, 1, 8), SequenceAttention::exchange);
}

}  // namespace
}  // namespace weft
