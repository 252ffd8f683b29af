// `weft lens` over ranks: what it writes, and that it ends when a rank fails, hangs, dies or is told to stop.
#include <gmock/gmock.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "faults.hpp"

namespace weft::test {
namespace {

using testing::HasSubstr;

Words lens(const TemporaryFolder& folder, const Words& more) {
  Words words = {weft_path(), "launch", "-n",       "2",         "--",        "lens",  "--device",    "cpu",
                 "--dtype",   "f32",    "--widths", "32",        "--lengths", "16",    "32",          "--models",
                 "attention", "qrnn",   "lstm",     "--timeout", "3",         "--out", folder / "out"};
  words.insert(words.end(), more.begin(), more.end());
  return words;
}

TEST(LensRun, WritesRowsOfEveryAxisAndPlots) {
  const TemporaryFolder folder;
  const Outcome outcome = run_program(lens(folder, {"--repeats", "1", "--sequences", "2", "--recall", "1"}), 90);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  std::ifstream file(folder / "out/lens.json");
  std::map<std::string, int> measured;
  for (const auto& row : nlohmann::json::parse(file)) measured[row.at("axis")] += row.contains("misfit") ? 0 : 1;
  // All go over sp and dp, over tp not attention, which has one head. Two lengths each.
  EXPECT_EQ(measured, (std::map<std::string, int>{{"none", 6}, {"sp", 6}, {"tp", 4}, {"dp", 6}}));
  for (const char* name :
       {"lens.html", "lens.csv", "speedup-sp-2.svg", "speedup-dp-2.svg", "bytes-sp.svg", "recall.svg"})
    EXPECT_TRUE(std::filesystem::exists(folder / ("out/" + std::string(name)))) << name;
  EXPECT_THAT(outcome.out, HasSubstr("--heads 1"));
}

TEST(LensRun, RefusesMoreRanksThanThereAre) {
  const TemporaryFolder folder;
  const Outcome outcome = run_program(lens(folder, {"--rank-counts", "2", "3"}), 60);
  EXPECT_EQ(outcome.status, 2) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("--rank-counts: found 3, but there are 2 ranks"));
  EXPECT_FALSE(std::filesystem::exists(folder / "out"));
}

struct Broken {
  std::string name, rule, message;
};

class BrokenLensRank : public testing::TestWithParam<Broken> {};

TEST_P(BrokenLensRank, EndsAllRanksAndIsNamed) {
  const TemporaryFolder folder;
  Words words = lens(folder, {"--repeats", "1"});
  words.insert(words.begin(), {"env", "WEFT_TEST_COMM=" + GetParam().rule});
  const Outcome outcome = run_program(words, 60);
  EXPECT_EQ(outcome.status, 3) << outcome.err;
  EXPECT_THAT(outcome.err, testing::ContainsRegex(GetParam().message));
  EXPECT_FALSE(std::filesystem::exists(folder / "out/lens.json"));
}

INSTANTIATE_TEST_SUITE_P(
    Table, BrokenLensRank,
    testing::Values(Broken{"Fails", "all_gather:sp 2/sp:first=1,count=1,rank=1,fail",
                           "rank 1 on [^ ]+, step [0-9]+, (for|back)ward: all_gather of sp 2/sp failed"},
                    Broken{"Hangs", "all_gather:sp 2/sp:first=1,count=1,rank=1,hang", "all_gather"}),
    [](const auto& row) { return row.param.name; });

struct Signalled {
  std::string name;
  int signal, status;
  std::string message;
};

class SignalledLens : public testing::TestWithParam<Signalled> {};

TEST_P(SignalledLens, EndsWithItsStatus) {
  const Signalled& row = GetParam();
  const TemporaryFolder folder;
  Background job(lens(folder, {"--repeats", "1000", "--lengths", "2048"}), folder);
  std::string ranks;
  const auto started = [&] {
    const Outcome found = run_program({"pgrep", "-f", "lens.*" + folder.path().string()}, 10);
    ranks = found.out;
    return std::ranges::count(found.out, '\n') >= 4;  // launch, mpirun and two ranks
  };
  ASSERT_TRUE(wait_until([&] { return started() || !job.running(); })) << job.err();
  ASSERT_TRUE(job.running()) << job.err();
  if (row.signal == SIGKILL)
    ::kill(static_cast<pid_t>(std::stol(ranks.substr(ranks.rfind('\n', ranks.size() - 2) + 1))), SIGKILL);
  else
    job.signal(row.signal);
  const Outcome outcome = job.wait();
  EXPECT_EQ(outcome.status, row.status) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr(row.message));
  EXPECT_FALSE(std::filesystem::exists(folder / "out/lens.json"));
}

INSTANTIATE_TEST_SUITE_P(Table, SignalledLens,
                         testing::Values(Signalled{"AKilledRank", SIGKILL, 3, "was killed by SIGKILL"},
                                         Signalled{"Term", SIGTERM, 75, "stopped by a signal"}),
                         [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace weft::test
