// The recall task asks for what it has said, and says how long ago.
#include "launcher/lens/recall.hpp"

#include <gtest/gtest.h>

#include <map>

namespace weft {
namespace {

TEST(RecallTask, AsksForWhatItHasSaid) {
  const RecallTask task;
  std::vector<std::int64_t> distances;
  const Batch batch = task.batch(5, 100, 6, &distances);
  std::int64_t questions = 0, longest = 0;
  for (std::int64_t i = 0; i < batch.count; ++i) {
    std::map<std::int64_t, std::pair<std::int64_t, std::int64_t>> said;  // key → value, position
    for (std::int64_t at = 0; at < task.seq; ++at) {
      const auto here = static_cast<std::size_t>(i * task.seq + at);
      const std::int64_t token = batch.tokens[here];
      ASSERT_GE(token, task.values) << "an answer stands among the inputs";
      ASSERT_LT(token, task.vocab());
      std::int64_t asked = -1;
      for (std::int64_t key = 0; key < task.keys; ++key) {
        if (token == task.question(key)) asked = key;
        for (std::int64_t value = 0; value < task.values; ++value)
          if (token == task.saying(key, value)) {
            EXPECT_TRUE(said.try_emplace(key, value, at).second) << "a key is said twice";
          }
      }
      ASSERT_EQ(batch.weights[here] > 0, asked >= 0);
      if (asked < 0) {
        EXPECT_EQ(batch.targets[here], -1);
        EXPECT_EQ(distances[here], 0);
        continue;
      }
      ASSERT_TRUE(said.contains(asked)) << "a question before its key";
      EXPECT_EQ(batch.targets[here], said.at(asked).first);
      EXPECT_EQ(distances[here], at - said.at(asked).second);
      longest = std::max(longest, distances[here]);
      ++questions;
    }
    EXPECT_EQ(said.size(), static_cast<std::size_t>(task.keys));
  }
  EXPECT_GT(questions, 6 * 32);
  EXPECT_GT(longest, 128);
}

TEST(RecallTask, ASequenceDependsOnSeedAndIndexAlone) {
  const RecallTask task;
  const Batch all = task.batch(5, 0, 4), tail = task.batch(5, 3, 1), other = task.batch(6, 3, 1);
  EXPECT_TRUE(std::equal(tail.tokens.begin(), tail.tokens.end(), all.tokens.end() - task.seq));
  EXPECT_NE(tail.tokens, other.tokens);
}

}  // namespace
}  // namespace weft
