// Processes of a launched training that are killed or stopped, and steps that cannot be taken: what was saved stays,
// and what went wrong is said.
#include <gmock/gmock.h>

#include <csignal>
#include <filesystem>
#include <random>
#include <thread>

#include "faults.hpp"

namespace weft::test {
namespace {

using testing::AnyOf;
using testing::ContainsRegex;
using testing::HasSubstr;

enum class Victim { first_rank, second_rank, all_ranks, mpirun, launch };

struct Kill {
  std::string name;
  Victim victim;
  int status;
  std::string message;
};

std::ostream& operator<<(std::ostream& stream, const Kill& row) { return stream << row.name; }

std::vector<pid_t> victims(Victim victim, const Training& run, const Background& job) {
  if (victim == Victim::launch) return {job.pid()};
  if (victim == Victim::mpirun) return {run.mpirun().value()};
  std::vector<pid_t> pids;
  for (const auto& [rank, pid] : run.ranks())
    if (victim == Victim::all_ranks || rank == (victim == Victim::first_rank ? 0 : 1)) pids.push_back(pid);
  return pids;
}

class KilledAtAnyMoment : public testing::TestWithParam<Kill> {};

TEST_P(KilledAtAnyMoment, LosesNothingThatWasSaved) {
  const Kill& row = GetParam();
  std::mt19937 random(static_cast<unsigned>(row.victim) + 1);
  const Training killed({"--checkpoint-every", "1"});
  for (int round = 0; round < 3; ++round) {
    const std::int64_t start = killed.last_checkpoint();
    Background job(killed.command(2), killed.folder());
    const std::int64_t wanted = start + 1 + static_cast<std::int64_t>(random() % 8);
    ASSERT_TRUE(wait_until([&] { return killed.last_checkpoint() >= wanted || !job.running(); }));
    ASSERT_TRUE(job.running()) << job.err();
    // Some moment of a step or a save.
    std::this_thread::sleep_for(std::chrono::microseconds(random() % 20000));
    const std::int64_t saved = killed.last_checkpoint();
    for (const pid_t pid : victims(row.victim, killed, job)) ::kill(pid, SIGKILL);
    const Outcome outcome = job.wait();
    EXPECT_EQ(outcome.status, row.status) << outcome.err;
    EXPECT_THAT(outcome.err, ContainsRegex(row.message));
    ASSERT_TRUE(killed.nobody_left()) << killed.processes().size() << " processes are left";
    EXPECT_GE(killed.last_checkpoint(), saved);
    if (round > 0) {
      EXPECT_THAT(outcome.err, HasSubstr("resumed at step " + std::to_string(start)));
    }
  }
  const std::int64_t end = killed.last_checkpoint() + 10;
  const Training whole;
  const Words more = {"--checkpoint-every", "0", "--steps", std::to_string(end)};
  ASSERT_EQ(whole.run(2, more).status, 0);
  const Outcome last = killed.run(2, more);
  ASSERT_EQ(last.status, 0) << last.err;
  expect_same_bits(whole, killed, end);
}

INSTANTIATE_TEST_SUITE_P(
    Table, KilledAtAnyMoment,
    testing::Values(Kill{"FirstRank", Victim::first_rank, 3, "rank 0 on [^ ]+ was killed by SIGKILL"},
                    Kill{"SecondRank", Victim::second_rank, 3, "rank 1 on [^ ]+ was killed by SIGKILL"},
                    Kill{"AllRanks", Victim::all_ranks, 3, "rank [01] on [^ ]+ was killed by SIGKILL"},
                    Kill{"Mpirun", Victim::mpirun, 3, "mpirun was killed by SIGKILL"},
                    Kill{"Launch", Victim::launch, 128 + SIGKILL, ""}),
    [](const auto& row) { return row.param.name; });

class FrozenTrainingRank : public testing::TestWithParam<int> {};

TEST_P(FrozenTrainingRank, IsFoundAndNamed) {
  const int rank = GetParam();
  const Training run({"--checkpoint-every", "20", "--timeout", "3"});
  Background job(run.command(2), run.folder());
  ASSERT_TRUE(wait_until([&] { return run.last_checkpoint() > 0 || !job.running(); }));
  const auto ranks = run.ranks();
  ASSERT_EQ(ranks.size(), 2u) << job.err();
  ::kill(ranks.at(rank), SIGSTOP);
  const std::int64_t saved = run.last_checkpoint();
  const Outcome outcome = job.wait();
  EXPECT_EQ(outcome.status, 3) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("rank " + std::to_string(rank) + " (host " + host_name() + ", pid " +
                                     std::to_string(ranks.at(rank)) + ") has been silent"));
  EXPECT_TRUE(run.nobody_left());
  EXPECT_EQ(run.last_checkpoint(), saved);
  const Outcome resumed = run.run(2, {"--steps", std::to_string(saved + 5)});
  EXPECT_EQ(resumed.status, 0) << resumed.err;
  EXPECT_THAT(resumed.err, HasSubstr("resumed at step " + std::to_string(saved)));
}

INSTANTIATE_TEST_SUITE_P(Table, FrozenTrainingRank, testing::Values(0, 1),
                         [](const auto& row) { return "Rank" + std::to_string(row.param); });

class FrozenStartingRank : public testing::TestWithParam<int> {};

TEST_P(FrozenStartingRank, IsNamed) {
  const int rank = GetParam();
  const Training run({"--timeout", "2"});
  Background job(run.command(2), run.folder());
  ASSERT_TRUE(wait_until([&] { return run.ranks().contains(rank) || !job.running(); }));
  ASSERT_TRUE(job.running()) << job.err();
  const pid_t frozen = run.ranks().at(rank);
  ::kill(frozen, SIGSTOP);
  const Outcome outcome = job.wait();
  EXPECT_EQ(outcome.status, 3) << outcome.err;
  const std::string named =
      "rank " + std::to_string(rank) + " (host " + host_name() + ", pid " + std::to_string(frozen) + ") ";
  // The second where it froze after the ranks had met.
  EXPECT_THAT(outcome.err, AnyOf(HasSubstr("rank " + std::to_string(1 - rank) +
                                           ": not all ranks came up within 10 s: " + named + "is stopped"),
                                 HasSubstr(named + "has been silent")));
  EXPECT_TRUE(run.nobody_left());
}

INSTANTIATE_TEST_SUITE_P(Table, FrozenStartingRank, testing::Values(0, 1),
                         [](const auto& row) { return "Rank" + std::to_string(row.param); });

// Steps of such a rate leave no finite loss behind after the first.
const Words too_fast = {"--lr", "1e30", "--warmup", "0", "--nonfinite-limit", "3", "--keep", "0"};

TEST(NonFiniteSteps, AreSkippedToALimitAndThenNamed) {
  for (const int ranks : {0, 2}) {
    const Training run(too_fast);
    const Outcome outcome = run.run(ranks, {"--checkpoint-every", "1"});
    EXPECT_EQ(outcome.status, 3) << outcome.err;
    // The last step that was not skipped is the last that is kept; three more were skipped before the one that failed.
    const std::int64_t good = run.last_checkpoint(), failed = good + 4;
    ASSERT_GE(good, 1);
    EXPECT_EQ(run.last_step(), failed);
    EXPECT_THAT(outcome.err, ContainsRegex("weft train: step " + std::to_string(failed) +
                                           ": (the parameter|the gradient of|the loss with the gradient of) [a-z0-9._]+ is not finite.*--nonfinite-limit 3"));
    const auto norms = run.step_values("grad_norm");
    EXPECT_NE(norms.at(good), "null");
    for (std::int64_t step = good + 1; step <= failed; ++step) EXPECT_EQ(norms.at(step), "null") << "step " << step;
    EXPECT_TRUE(run.nobody_left());
  }
}

TEST(NonFiniteSteps, MoveNothing) {
  const Training run(too_fast);
  ASSERT_EQ(run.run(0, {"--checkpoint-every", "1", "--steps", "3"}).status, 0);
  const auto norms = run.step_values("grad_norm");
  ASSERT_NE(norms.at(1), "null");
  ASSERT_EQ(norms.at(2), "null");
  ASSERT_EQ(norms.at(3), "null");
  // The end of training is saved even after a step that was skipped.
  ASSERT_EQ(run.last_checkpoint(), 3);
  EXPECT_TRUE(run.checkpoint_data(3) == run.checkpoint_data(1));
}

TEST(NonFiniteSteps, AreCountedOverARestart) {
  const Training whole(too_fast), parts(too_fast);
  ASSERT_EQ(whole.run(0).status, 3);
  const std::int64_t failed = whole.last_step();
  ASSERT_EQ(parts.run(0, {"--steps", std::to_string(failed - 2)}).status, 0);
  const Outcome outcome = parts.run(0);
  EXPECT_EQ(outcome.status, 3) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("weft train: step " + std::to_string(failed) + ": "));
}

TEST(LongSteps, AreWaitedForAfterAStopSignal) {
  const Training run({"--batch", "8", "--micro-batch", "1", "--bucket-mb", "0.001"});
  Words words = run.command(2, {"--tp", "2"});
  words.insert(words.begin() + 2, {"--grace", "3"});
  words.insert(words.begin(), {"env", "WEFT_TEST_COMM=latency=0.05"});
  Background job(words, run.folder());
  ASSERT_TRUE(wait_until([&] { return run.last_step() > 0 || !job.running(); })) << job.err();
  job.signal(SIGTERM);
  EXPECT_EQ(job.wait().status, 75) << job.err();
  EXPECT_EQ(run.last_checkpoint(), run.last_step());
}

TEST(LongValidation, EndsAtAStopSignalAndIsMadeUpForLater) {
  const Training run({"--valid-every", "5"});
  // Zeros that no disk holds, for minutes of work.
  const std::string large = run.folder().write("valid.bin", "");
  std::filesystem::resize_file(large, std::uintmax_t{1} << 30);
  Background job(run.command(2, {"--valid", large, "--data-format", "bytes"}), run.folder());
  ASSERT_TRUE(wait_until([&] { return run.last_step() == 5 || !job.running(); })) << job.err();
  job.signal(SIGTERM);
  const Outcome outcome = job.wait();
  EXPECT_EQ(outcome.status, 75) << outcome.err;
  EXPECT_EQ(run.last_checkpoint(), 5);
  EXPECT_TRUE(run.valid_losses().empty());

  std::filesystem::resize_file(large, 4096);
  const Outcome resumed = run.run(2, {"--valid", large, "--data-format", "bytes", "--steps", "10"});
  EXPECT_EQ(resumed.status, 0) << resumed.err;
  EXPECT_TRUE(run.valid_losses().contains(5));
  EXPECT_TRUE(run.valid_losses().contains(10));
}

TEST(LongValidation, EndsBeforeTheTimeLimit) {
  const Training run({"--valid-every", "1", "--data-format", "bytes"});
  const std::string large = run.folder().write("valid.bin", "");
  std::filesystem::resize_file(large, std::uintmax_t{1} << 30);
  const Outcome outcome = run_program(run.command(0, {"--valid", large, "--max-time", "4"}), 60);
  EXPECT_EQ(outcome.status, 75) << outcome.err;
  EXPECT_EQ(run.last_checkpoint(), 1);
}

}  // namespace
}  // namespace weft::test
