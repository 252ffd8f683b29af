// Training under a bare mpirun, which nothing of Weft's watches over.
#include <gmock/gmock.h>

#include <algorithm>
#include <csignal>
#include <filesystem>

#include "faults.hpp"

namespace weft::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

class Usr1ToRanks : public testing::TestWithParam<int> {};

TEST_P(Usr1ToRanks, SavesAndMpirunReturns75) {
  const Training run, whole;
  Background job(run.bare_mpirun(2), run.folder());
  ASSERT_TRUE(wait_until([&] { return run.last_step() >= 10 || !job.running(); }));
  const auto ranks = run.ranks();
  ASSERT_EQ(ranks.size(), 2u) << job.err();
  for (const auto& [rank, pid] : ranks)
    if (rank >= GetParam()) ::kill(pid, SIGUSR1);
  const Outcome outcome = job.wait();
  EXPECT_EQ(outcome.status, 75) << outcome.err;
  EXPECT_TRUE(run.nobody_left());
  EXPECT_EQ(run.last_checkpoint(), run.last_step());

  const std::int64_t end = run.last_checkpoint() + 10;
  EXPECT_EQ(run_program(run.bare_mpirun(2, {"--steps", std::to_string(end)}), 60).status, 0);
  ASSERT_EQ(whole.run(2, {"--steps", std::to_string(end)}).status, 0);
  expect_same_bits(whole, run, end);
}

INSTANTIATE_TEST_SUITE_P(Table, Usr1ToRanks, testing::Values(0, 1),
                         [](const auto& row) { return row.param == 0 ? "All" : "OnlyTheSecond"; });

enum class Victim { rank, mpirun };

class KilledUnderMpirun : public testing::TestWithParam<Victim> {};

TEST_P(KilledUnderMpirun, LeavesNobodyAndGoesOnFromItsLastCheckpoint) {
  const Training run({"--checkpoint-every", "5"}), whole;
  Background job(run.bare_mpirun(2), run.folder());
  ASSERT_TRUE(wait_until([&] { return run.last_checkpoint() >= 10 || !job.running(); }));
  ASSERT_EQ(run.ranks().size(), 2u) << job.err();
  const std::vector<std::string> shared = run.shared_memory();
  ::kill(GetParam() == Victim::rank ? run.ranks().at(1) : run.mpirun().value(), SIGKILL);
  EXPECT_EQ(job.wait().status, 128 + SIGKILL);
  EXPECT_TRUE(run.nobody_left());
  for (const std::string& path : shared) std::filesystem::remove(path);
  const std::int64_t saved = run.last_checkpoint();
  EXPECT_GE(saved, 10);
  const std::string end = std::to_string(saved + 10);
  const Outcome resumed = run.run(2, {"--steps", end});
  ASSERT_EQ(resumed.status, 0) << resumed.err;
  EXPECT_THAT(resumed.err, HasSubstr("resumed at step " + std::to_string(saved)));
  ASSERT_EQ(whole.run(2, {"--steps", end}).status, 0);
  expect_same_bits(whole, run, saved + 10);
}

INSTANTIATE_TEST_SUITE_P(Table, KilledUnderMpirun, testing::Values(Victim::rank, Victim::mpirun),
                         [](const auto& row) { return row.param == Victim::rank ? "Rank" : "Mpirun"; });

TEST(RanksOfDifferentOptions, AreRefusedByOneLine) {
  const Training run;
  Words words = run.bare_mpirun(1, {"--steps", "5"});
  words.insert(words.end(), {":", "-n", "1"});
  const Words second = run.train({"--steps", "6"});
  words.insert(words.end(), second.begin(), second.end());
  const Outcome outcome = run_program(words, 60);
  EXPECT_EQ(outcome.status, 2) << outcome.err;
  EXPECT_THAT(outcome.lines(), ElementsAre(AllOf(HasSubstr("rank 1"), HasSubstr("steps = 5"), HasSubstr("steps = 6"))));
  EXPECT_THAT(run.folder().entries(), ElementsAre("data.txt"));
  EXPECT_TRUE(run.nobody_left());
}

TEST(RanksThatSeeDifferentData, AreRefusedByOneLine) {
  const Training run;
  const TemporaryFolder first, second;
  first.write("text.txt", std::string(5000, 'a'));
  second.write("text.txt", std::string(6000, 'a'));
  Words words = run.bare_mpirun(1, {"--data", "text.txt"});
  words.insert(std::ranges::find(words, "-n"), {"-wdir", first.path().string()});
  words.insert(words.end(), {":", "-wdir", second.path().string(), "-n", "1"});
  const Words other = run.train({"--data", "text.txt"});
  words.insert(words.end(), other.begin(), other.end());
  const Outcome outcome = run_program(words, 60);
  EXPECT_EQ(outcome.status, 2) << outcome.err;
  EXPECT_THAT(outcome.lines(), ElementsAre(AllOf(HasSubstr("data differ"), HasSubstr("training tokens"), HasSubstr("rank 1"))));
}

}  // namespace
}  // namespace weft::test
