// A disk that is full while a training saves, and what the run's folder holds of earlier courses of it.
#include <gmock/gmock.h>
#include <sys/mount.h>
#include <sys/resource.h>

#include <algorithm>
#include <csignal>
#include <filesystem>
#include <fstream>

#include "faults.hpp"

namespace weft::test {
namespace {

using testing::HasSubstr;

// The run's folder on a small file system; where none may be mounted, its ranks' files are kept from growing.
class SmallDisk {
 public:
  explicit SmallDisk(const Training& run) : run_(run) {
    std::filesystem::create_directory(run.out());
    mounted_ = ::mount("tmpfs", run.out().c_str(), "tmpfs", 0, "size=4m") == 0;
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(run_.out().c_str(), MNT_DETACH);
  }
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  void fill() const {
    if (!mounted_) return limit_files(4096);
    std::ofstream file(run_.out() + "/filler");
    const std::string block(4096, 'x');
    while (file.write(block.data(), static_cast<std::streamsize>(block.size())).flush()) {
    }
  }
  void empty() const {
    if (!mounted_) return limit_files(RLIM_INFINITY);
    std::filesystem::remove(run_.out() + "/filler");
  }

 private:
  void limit_files(rlim_t bytes) const {
    const rlimit limit = {bytes, RLIM_INFINITY};
    for (const auto& [rank, pid] : run_.ranks()) ASSERT_EQ(::prlimit(pid, RLIMIT_FSIZE, &limit, nullptr), 0);
  }

  const Training& run_;
  bool mounted_ = false;
};

std::int64_t count_of(const std::string& text, const std::string& part) {
  std::int64_t count = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

const std::string warning = "could not be saved";

TEST(FullDisk, IsAWarningWhenALaterSaveSucceeds) {
  const Training run({"--checkpoint-every", "50"}), whole;
  const SmallDisk disk(run);
  Background job(run.command(2, {"--steps", "4000"}), run.folder());
  ASSERT_TRUE(wait_until([&] { return run.last_checkpoint() > 0 || !job.running(); }));
  disk.fill();
  // Training goes on: the second warning is a later save's.
  ASSERT_TRUE(wait_until([&] { return count_of(job.err(), warning) >= 2 || !job.running(); }));
  ASSERT_TRUE(job.running()) << job.err();
  EXPECT_GT(run.last_checkpoint(), 0);
  disk.empty();
  const Outcome outcome = job.wait();
  EXPECT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(run.last_checkpoint(), 4000);
  ASSERT_EQ(whole.run(2, {"--steps", "4000"}).status, 0);
  expect_same_bits(whole, run, 4000);
}

TEST(FullDisk, FailsTheRunWhenNoLaterSaveSucceedsAndKeepsTheOldCheckpoint) {
  const Training run({"--checkpoint-every", "50"}), whole;
  const SmallDisk disk(run);
  Background job(run.command(2), run.folder());
  ASSERT_TRUE(wait_until([&] { return run.last_checkpoint() > 0 || !job.running(); }));
  disk.fill();
  ASSERT_TRUE(wait_until([&] { return count_of(job.err(), warning) >= 1 || !job.running(); }));
  ASSERT_TRUE(job.running()) << job.err();
  job.signal(SIGTERM);
  const Outcome outcome = job.wait();
  EXPECT_EQ(outcome.status, 3) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("weft train: the last checkpoint could not be saved"));
  EXPECT_TRUE(run.nobody_left());
  disk.empty();

  const std::int64_t saved = run.last_checkpoint();
  EXPECT_EQ(saved % 50, 0);
  const std::string end = std::to_string(saved + 10);
  const Outcome resumed = run.run(2, {"--steps", end});
  ASSERT_EQ(resumed.status, 0) << resumed.err;
  EXPECT_THAT(resumed.err, HasSubstr("resumed at step " + std::to_string(saved)));
  ASSERT_EQ(whole.run(2, {"--steps", end}).status, 0);
  expect_same_bits(whole, run, saved + 10);
}

TEST(FullDisk, UnderStandardErrorDoesNotEndTheRun) {
  const Training run({"--checkpoint-every", "5", "--log-every", "1"});
  for (const int ranks : {0, 2}) {
    Words words = {"bash", "-c", "exec \"$@\" 2> /dev/full", "bash"};
    const Words command = run.command(ranks, {"--steps", ranks == 0 ? "20" : "40"});
    words.insert(words.end(), command.begin(), command.end());
    EXPECT_EQ(run_program(words, 60).status, 0);
  }
  EXPECT_EQ(run.last_checkpoint(), 40);
}

TEST(StandardError, MayLoseItsReader) {
  const Training run({"--checkpoint-every", "5", "--log-every", "1"});
  Words words = {"bash", "-c", "\"$@\" 2>&1 | head -n 1; exit ${PIPESTATUS[0]}", "bash"};
  const Words command = run.command(0, {"--steps", "50"});
  words.insert(words.end(), command.begin(), command.end());
  EXPECT_EQ(run_program(words, 60).status, 0);
  EXPECT_EQ(run.last_checkpoint(), 50);
}

TEST(FileSizeLimit, IsMetLikeAFullDisk) {
  const Training run({"--checkpoint-every", "50"});
  Background job(run.command(0), run.folder());
  ASSERT_TRUE(wait_until([&] { return run.last_checkpoint() > 0 || !job.running(); }));
  const rlimit small = {4096, RLIM_INFINITY}, none = {RLIM_INFINITY, RLIM_INFINITY};
  ASSERT_EQ(::prlimit(job.pid(), RLIMIT_FSIZE, &small, nullptr), 0);
  ASSERT_TRUE(wait_until([&] { return count_of(job.err(), warning) >= 2 || !job.running(); }));
  ASSERT_TRUE(job.running()) << job.err();
  const std::int64_t saved = run.last_checkpoint();
  ASSERT_EQ(::prlimit(job.pid(), RLIMIT_FSIZE, &none, nullptr), 0);
  ASSERT_TRUE(wait_until([&] { return run.last_checkpoint() > saved || !job.running(); }));
  job.signal(SIGUSR1);
  const Outcome outcome = job.wait();
  EXPECT_EQ(outcome.status, 75) << outcome.err;
  // Rows that could not be written have waited.
  EXPECT_EQ(run.step_values().size(), static_cast<std::size_t>(run.last_checkpoint()));
}

TEST(RunFolder, IsUsedByOneRunAtATime) {
  const Training run({"--checkpoint-every", "5"});
  Background first(run.command(0), run.folder());
  ASSERT_TRUE(wait_until([&] { return run.last_checkpoint() > 0 || !first.running(); }));
  const Outcome second = run.run(0);
  EXPECT_EQ(second.status, 2) << second.err;
  ASSERT_EQ(second.lines().size(), 1u) << second.err;
  EXPECT_THAT(second.err, HasSubstr("--out: another run is writing to " + run.out()));
  first.signal(SIGUSR1);
  EXPECT_EQ(first.wait().status, 75);
}

TEST(RunFolder, OfAKilledLaunchCanBeUsedAtOnce) {
  const Training run({"--checkpoint-every", "1"}), whole;
  {
    Background job(run.command(2), run.folder());
    ASSERT_TRUE(wait_until([&] { return run.last_checkpoint() > 10 || !job.running(); }));
    job.signal(SIGKILL);
    job.wait();
  }
  const std::int64_t end = run.last_checkpoint() + 1000;
  const Words more = {"--checkpoint-every", "0", "--steps", std::to_string(end)};
  const Outcome resumed = run.run(2, more);
  ASSERT_EQ(resumed.status, 0) << resumed.err;
  ASSERT_EQ(whole.run(2, more).status, 0);
  expect_same_bits(whole, run, end);
}

TEST(RunFolder, WithCheckpointsIsNotStartedAnew) {
  const Training run;
  ASSERT_EQ(run.run(0, {"--steps", "10"}).status, 0);
  const Outcome anew = run.run(0, {"--steps", "10", "--resume", "none"});
  EXPECT_EQ(anew.status, 2);
  EXPECT_THAT(anew.err, HasSubstr("--out: " + run.out() + " holds checkpoints, the last is step-00000010"));
  EXPECT_EQ(run.checkpoints(), std::vector<std::int64_t>{10});
  EXPECT_EQ(run.step_values().size(), 10u);
}

TEST(RunFolder, ForgetsTheCourseThatWasGivenUp) {
  const Training run({"--checkpoint-every", "10"}), whole;
  ASSERT_EQ(run.run(0, {"--steps", "30", "--keep", "0"}).status, 0);
  EXPECT_EQ(run.checkpoints(), (std::vector<std::int64_t>{10, 20, 30}));
  const Outcome resumed =
      run.run(0, {"--steps", "20", "--keep", "1", "--resume", run.out() + "/checkpoints/step-00000010"});
  EXPECT_EQ(resumed.status, 0);
  EXPECT_THAT(resumed.err, HasSubstr("resumed at step 10"));
  EXPECT_EQ(run.checkpoints(), std::vector<std::int64_t>{20});
  ASSERT_EQ(whole.run(0, {"--steps", "20"}).status, 0);
  expect_same_bits(whole, run, 20);
}

}  // namespace
}  // namespace weft::test
