// What `weft eval` writes beside its figures.
#include <gmock/gmock.h>

#include <cmath>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "core/io/safetensors.hpp"
#include "faults.hpp"

namespace weft::test {
namespace {

using nlohmann::json;
using testing::HasSubstr;

class EvalLogits : public testing::Test {
 protected:
  EvalLogits() { EXPECT_EQ(run_.run(0, {"--steps", "2", "--vocab", "300"}).status, 0); }
  Outcome evaluate(const std::string& file, const Words& more = {}) const {
    Words words = {"eval", "--checkpoint", run_.out(), "--data", text_, "--dtype", "f32", "--json", "--logits", file};
    words.insert(words.end(), more.begin(), more.end());
    return run_weft(words);
  }

  Training run_;
  TemporaryFolder folder_;
  const std::string text_ = folder_.write("text.txt", std::string(20, 'a') + "line of text" + std::string(40, 'b'));
};

TEST_F(EvalLogits, GiveItsLossAndStandByTheirTokens) {
  constexpr std::int64_t seq = 32, vocab = 300;
  for (const std::int64_t windows : {3, 1}) {
    const std::string written = folder_ / ("l" + std::to_string(windows) + ".safetensors");
    const Outcome outcome = evaluate(written, {"--valid-tokens", windows == 1 ? "5" : "0"});
    ASSERT_EQ(outcome.status, 0) << outcome.err;
    const SafetensorsReader file(written);
    const View tokens = file.view("tokens"), targets = file.view("targets"), logits = file.view("logits");
    EXPECT_EQ(tokens.shape, (Shape{windows, seq}));
    EXPECT_EQ(targets.shape, (Shape{windows, seq}));
    ASSERT_EQ(logits.shape, (Shape{windows, seq, vocab}));
    EXPECT_EQ(tokens.as<std::int32_t>()[20], 'l');
    EXPECT_EQ(targets.as<std::int32_t>()[20], 'i');
    double loss = 0;
    std::int64_t count = 0;
    for (std::int64_t row = 0; row < windows * seq; ++row) {
      const std::int32_t target = targets.as<std::int32_t>()[row];
      if (target < 0) continue;
      const float* const own = logits.as<float>() + row * vocab;
      double sum = 0;
      for (std::int64_t token = 0; token < vocab; ++token) sum += std::exp(static_cast<double>(own[token]));
      loss += std::log(sum) - own[target];
      ++count;
    }
    const json row = json::parse(outcome.out);
    EXPECT_EQ(row.at("targets"), count);
    EXPECT_NEAR(row.at("loss").get<double>(), loss / static_cast<double>(count), 1e-5);
  }
}

TEST_F(EvalLogits, AreOfOneRankAndGoToAFile) {
  Words words = {"launch",
                 "-n",
                 "2",
                 "--",
                 "eval",
                 "--checkpoint",
                 run_.out(),
                 "--data",
                 text_,
                 "--logits",
                 folder_ / "l.safetensors"};
  const Outcome two = run_weft(words);
  EXPECT_EQ(two.status, 2);
  EXPECT_THAT(two.lines(), testing::ElementsAre(HasSubstr("--logits: found 2 ranks")));
  const Outcome folder = evaluate(folder_.path().string());
  EXPECT_EQ(folder.status, 2);
  EXPECT_THAT(folder.lines(), testing::ElementsAre(HasSubstr("a folder; a file would be right")));
  const Outcome taken = evaluate(text_);
  EXPECT_EQ(taken.status, 2);
  EXPECT_THAT(taken.lines(), testing::ElementsAre(HasSubstr("--logits: " + text_ + " exists")));
}

}  // namespace
}  // namespace weft::test
