// Checkpoints that are written while training goes on: steps do not wait for a slow disk, and whatever happens meanwhile, the
// run is the one that was never disturbed.
#include <gmock/gmock.h>

#include <csignal>

#include "faults.hpp"

namespace weft::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

constexpr const char* disk_seconds = "1.5";  // of each file's sync: the tiny model takes hundreds of steps meanwhile

Words slowly(const Words& command) {
  Words words = {"env", std::string("WEFT_TEST_SLOW_DISK=") + disk_seconds};
  words.insert(words.end(), command.begin(), command.end());
  return words;
}

class AsyncCheckpoint : public testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Ranks, AsyncCheckpoint, testing::Values(0, 2));

TEST_P(AsyncCheckpoint, StepsGoOnWhileOneIsWritten) {
  const Training run({"--checkpoint-every", "20"});
  Background job(slowly(run.command(GetParam(), {"--steps", "100000"})), run.folder());
  // With each step waiting for the disk there would be a checkpoint every 20 steps.
  ASSERT_TRUE(wait_until([&] { return run.last_step() >= 35 || !job.running(); })) << job.err();
  EXPECT_TRUE(run.checkpoints().empty());
  ASSERT_TRUE(wait_until([&] { return !run.checkpoints().empty() || !job.running(); })) << job.err();
  EXPECT_EQ(run.checkpoints().front(), 20);
  EXPECT_TRUE(job.running());
}

TEST_P(AsyncCheckpoint, KilledInTheMidstOfOneTheRunGoesOnFromTheOneBefore) {
  const Training killed({"--checkpoint-every", "30"}), whole;
  ASSERT_EQ(killed.run(GetParam(), {"--steps", "30"}).status, 0);
  Background job(slowly(killed.command(GetParam(), {"--steps", "100000"})), killed.folder());
  ASSERT_TRUE(wait_until([&] { return killed.last_step() >= 65 || !job.running(); })) << job.err();
  ASSERT_THAT(killed.checkpoints(), ElementsAre(30)) << "the save of step 60 did not last long enough";
  for (const pid_t pid : killed.processes()) ::kill(pid, SIGKILL);
  job.wait();
  const Outcome outcome = killed.run(GetParam(), {"--steps", "80"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("resumed at step 30"));
  ASSERT_EQ(whole.run(GetParam(), {"--steps", "80"}).status, 0);
  expect_same_bits(whole, killed, 80);
}

TEST_P(AsyncCheckpoint, SavesThatComeTooFastAndTheLastWaitForTheDisk) {
  const Training slow({"--checkpoint-every", "4", "--keep", "0"}), whole({"--async-checkpoint", "off"});
  const Outcome outcome = run_program(slowly(slow.command(GetParam(), {"--steps", "12"})), 90);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(slow.checkpoints(), ElementsAre(4, 8, 12));
  ASSERT_EQ(whole.run(GetParam(), {"--steps", "12"}).status, 0);
  expect_same_bits(whole, slow, 12);
}

TEST(AsyncCheckpointOption, HoldsNoCopyUnderAMemoryLimitUnlessAsked) {
  const Training run({"--memory-limit", "1G"});
  const Outcome refused = run.run(0, {"--steps", "2", "--async-checkpoint", "on"});
  EXPECT_EQ(refused.status, 2);
  EXPECT_THAT(refused.err, HasSubstr("--async-checkpoint: found on, but --memory-limit"));
  EXPECT_EQ(run.run(0, {"--steps", "2"}).status, 0);
}

}  // namespace
}  // namespace weft::test
