// A model that does not fit a memory limit on one rank is refused before anything is allocated or written, and trains on four
// that share it out.
#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>

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
    for (const std::string& word :
         Words{"train",    "--data", data_,           "--out", folder_ / out, "--quiet", "--device",       "cpu",
               "--layers", "6",      "--d-model",     "256",   "--heads",     "4",       "--seq",          "16",
               "--batch",  "4",      "--micro-batch", "1",     "--threads",   "1",       "--memory-limit", "60M",
               "--steps",  "2",      "--dtype",       "f32"})
      words.push_back(word);
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
