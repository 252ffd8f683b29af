// A model that does not fit a memory limit on one rank is refused before anything is allocated or written, and trains on four
// that share it out.
#include <gmock/gmock.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <map>

#include "run_weft.hpp"

namespace weft::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using Words = std::vector<std::string>;

class MemoryLimit : public testing::Test {
 protected:
  MemoryLimit() {
    std::string text;
    for (int i = 0; text.size() < 4000; ++i) text += "line " + std::to_string(i * i % 31) + " of warp and weft\n";
    data_ = folder_.write("text", text);
  }
  /// 4.8 million parameters: 73 MiB of values, gradients and optimizer state.
  Outcome train(const std::string& out, int ranks, const Words& more) const {
    Words words = {"env", "OMP_NUM_THREADS=1", weft_path()};
    if (ranks > 1) words.insert(words.end(), {"launch", "-n", std::to_string(ranks), "--"});
    words.insert(words.end(), {"train", "--data", data_, "--out", folder_ / out, "--quiet", "--device", "cpu"});
    for (const auto& [option, value] : std::map<std::string, std::string>{{"layers", "6"},
                                                                          {"d-model", "256"},
                                                                          {"heads", "4"},
                                                                          {"seq", "16"},
                                                                          {"batch", "4"},
                                                                          {"micro-batch", "1"},
                                                                          {"threads", "1"},
                                                                          {"memory-limit", "60M"},
                                                                          {"steps", "2"},
                                                                          {"dtype", "f32"}})
      if (std::ranges::find(more, "--" + option) == more.end()) words.insert(words.end(), {"--" + option, value});
    words.insert(words.end(), more.begin(), more.end());
    return run_program(words, 120);
  }
  std::size_t rows(const std::string& out) const {
    std::ifstream file(folder_ / (out + "/metrics.jsonl"));
    std::size_t count = 0;
    for (std::string line; std::getline(file, line);) count += line.find("\"loss\"") != std::string::npos;
    return count;
  }

  TemporaryFolder folder_;
  std::string data_;
};

TEST_F(MemoryLimit, RefusesWhatOneRankCannotHoldAndSaysByHowMuch) {
  const Outcome alone = train("alone", 1, {});
  EXPECT_EQ(alone.status, 2) << alone.err;
  EXPECT_THAT(alone.err, AllOf(HasSubstr("--memory-limit: found "), HasSubstr("parameters 2"),
                               HasSubstr("MiB too much"), HasSubstr("no --zero and --recompute fit")));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "alone"));
}

// Nothing beside the training takes memory: not what measures the machine's speed, nor the validations.
TEST_F(MemoryLimit, TrainsAndValidatesJustAboveWhatTheRefusalNames) {
  const Words every = {"--valid-every", "1"};
  const auto with = [&](const std::string& limit) {
    Words words = every;
    words.insert(words.end(), {"--memory-limit", limit});
    return words;
  };
  const Outcome refused = train("refused", 1, with("1M"));
  EXPECT_EQ(refused.status, 2) << refused.err;
  const std::string named = "a rank needs ";
  const auto at = refused.err.find(named);
  ASSERT_NE(at, std::string::npos) << refused.err;
  const double needed = std::stod(refused.err.substr(at + named.size()));
  EXPECT_NE(refused.err.find("MiB at least"), std::string::npos) << refused.err;
  const Outcome trained = train("trained", 1, with(std::to_string(std::lround(1024 * 1.05 * needed)) + "K"));
  EXPECT_EQ(trained.status, 0) << trained.err;
  EXPECT_EQ(rows("trained"), 2u);
}

TEST_F(MemoryLimit, NamesTheStagesThatFit) {
  const Outcome replicas = train("replicas", 4, {});
  EXPECT_EQ(replicas.status, 2) << replicas.err;
  EXPECT_THAT(replicas.err, AllOf(HasSubstr("MiB too much"), HasSubstr("these fit: "), HasSubstr("--zero 3")));
  EXPECT_FALSE(std::filesystem::exists(folder_ / "replicas"));
}

TEST_F(MemoryLimit, TrainsOnFourRanksThatShareTheParametersOrTheHeads) {
  for (const Words& layout : {Words{"--zero", "3"}, Words{"--tp", "4"}}) {
    const Outcome outcome = train("four" + layout.front(), 4, layout);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_GE(rows("four" + layout.front()), 2u);
  }
}

}  // namespace
}  // namespace weft::test
