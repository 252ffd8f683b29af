// A run that was stopped and started again with the same command is the run that was never stopped.
#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/file.h>
#include <unistd.h>

#include <cmath>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <iterator>

#include "faults.hpp"

namespace weft::test {
namespace {

using testing::HasSubstr;

enum class Stop { usr1_to_ranks, usr1_to_launch, term_to_launch, int_to_launch, max_time };

struct Case {
  std::string name;
  int ranks;  ///< 0: alone
  Stop stop;
};

std::ostream& operator<<(std::ostream& stream, const Case& row) { return stream << row.name; }

void send(Stop stop, const Background& job, const Training& run) {
  switch (stop) {
    case Stop::usr1_to_ranks:
      for (const auto& [rank, pid] : run.ranks()) ::kill(pid, SIGUSR1);
      break;
    case Stop::usr1_to_launch: job.signal(SIGUSR1); break;
    case Stop::term_to_launch: job.signal(SIGTERM); break;
    case Stop::int_to_launch: job.signal(SIGINT); break;
    case Stop::max_time: break;
  }
}

class StoppedTwice : public testing::TestWithParam<Case> {};

TEST_P(StoppedTwice, ReachesTheSameBits) {
  const Case& row = GetParam();
  const Words settings = {"--valid-every", "40", "--checkpoint-every", "150"};
  const Training stopped(settings);
  Words more;
  if (row.stop == Stop::max_time) more = {"--max-time", "2"};
  for (int part = 0; part < 2; ++part) {
    const std::int64_t before = stopped.last_checkpoint();
    Background job(stopped.command(row.ranks, more), stopped.folder());
    if (row.stop != Stop::max_time) {
      ASSERT_TRUE(wait_until([&] { return stopped.last_step() >= before + 25 || !job.running(); })) << job.err();
      send(row.stop, job, stopped);
    }
    const Outcome outcome = job.wait();
    ASSERT_EQ(outcome.status, 75) << outcome.err;
    ASSERT_GT(stopped.last_checkpoint(), before);
    EXPECT_EQ(stopped.last_checkpoint(), stopped.last_step());
    if (part == 1) {
      EXPECT_THAT(outcome.err, HasSubstr("resumed at step " + std::to_string(before)));
    }
    EXPECT_TRUE(stopped.nobody_left());
  }
  const std::int64_t end = stopped.last_checkpoint();
  const Training whole(settings);
  ASSERT_EQ(whole.run(row.ranks, {"--steps", std::to_string(end)}).status, 0);
  expect_same_bits(whole, stopped, end);
  // A validation that a stop left out is made up for by the next start; the last start's own last one may be missing.
  auto of_whole = whole.valid_losses(), of_stopped = stopped.valid_losses();
  of_whole.erase(end);
  of_stopped.erase(end);
  EXPECT_EQ(of_whole, of_stopped);
}

INSTANTIATE_TEST_SUITE_P(Table, StoppedTwice,
                         testing::Values(Case{"AloneByUsr1", 0, Stop::usr1_to_ranks},
                                         Case{"AloneByTime", 0, Stop::max_time},
                                         Case{"TwoRanksByUsr1", 2, Stop::usr1_to_ranks},
                                         Case{"TwoRanksByUsr1ToLaunch", 2, Stop::usr1_to_launch},
                                         Case{"TwoRanksByTermToLaunch", 2, Stop::term_to_launch},
                                         Case{"TwoRanksByIntToLaunch", 2, Stop::int_to_launch},
                                         Case{"TwoRanksByTime", 2, Stop::max_time}),
                         [](const auto& row) { return row.param.name; });

TEST(SameLayout, TwiceGivesTheSameBits) {
  const Training first, second;
  for (const Training* run : {&first, &second}) {
    const Outcome outcome = run->run(2, {"--steps", "60", "--checkpoint-every", "20"});
    ASSERT_EQ(outcome.status, 0) << outcome.err;
  }
  expect_same_bits(first, second, 60);
  EXPECT_EQ(first.valid_losses(), second.valid_losses());
}

struct Part {
  int ranks;  ///< 0: alone
  Words layout = {};
};

struct Change {
  std::string name;
  Part before, after;
};

std::ostream& operator<<(std::ostream& stream, const Change& row) { return stream << row.name; }

class OtherLayout : public testing::TestWithParam<Change> {};

TEST_P(OtherLayout, TakesTheSameSamplesToTheSameLosses) {
  const auto& [name, before, after] = GetParam();
  const auto with = [](const Part& part, const std::string& steps) {
    Words words = {"--steps", steps};
    words.insert(words.end(), part.layout.begin(), part.layout.end());
    return words;
  };
  const Words exact = {"--dtype", "f32"};
  const Training changed(exact), whole(exact);
  ASSERT_EQ(whole.run(before.ranks, with(before, "60")).status, 0);
  ASSERT_EQ(changed.run(before.ranks, with(before, "30")).status, 0);
  const Outcome resumed = changed.run(after.ranks, with(after, "60"));
  ASSERT_EQ(resumed.status, 0) << resumed.err;
  EXPECT_THAT(resumed.err, HasSubstr("resumed at step 30"));
  const auto expected = whole.step_values(), found = changed.step_values();
  ASSERT_EQ(expected.size(), 60u);
  ASSERT_EQ(found.size(), 60u);
  for (const auto& [step, loss] : expected)
    EXPECT_LT(std::abs(std::stod(found.at(step)) / std::stod(loss) - 1), 1e-5) << "step " << step;
  EXPECT_EQ(whole.checkpoint_state(60), changed.checkpoint_state(60));
}

INSTANTIATE_TEST_SUITE_P(Table, OtherLayout,
                         testing::Values(Change{"TwoToOne", {2}, {1}}, Change{"TwoToAlone", {2}, {0}},
                                         Change{"OneToThree", {1}, {3}}, Change{"AloneToFour", {0}, {4}},
                                         Change{"HeadsToTokens", {2, {"--tp", "2"}}, {2, {"--sp", "2"}}},
                                         Change{"TokensToAlone", {3, {"--sp", "3"}}, {0}},
                                         Change{"SequencesToAllAxes", {2}, {4, {"--sp", "2", "--tp", "2"}}},
                                         Change{"SharedParametersToAlone", {3, {"--zero", "3"}}, {0}},
                                         Change{"SharedGradientsToSharedParametersOfShards",
                                                {2, {"--zero", "2"}},
                                                {4, {"--zero", "3", "--tp", "2", "--recompute", "attention"}}}),
                         [](const auto& row) { return row.param.name; });

TEST(ResumedInAnotherDtype, IsSaid) {
  const Training run;
  ASSERT_EQ(run.run(0, {"--steps", "3", "--dtype", "f32"}).status, 0);
  const Outcome same = run.run(2, {"--steps", "4", "--dtype", "f32"});
  EXPECT_THAT(same.err, testing::Not(testing::HasSubstr("was trained in")));
  const Outcome other = run.run(2, {"--steps", "5", "--dtype", "bf16"});
  EXPECT_EQ(other.status, 0) << other.err;
  EXPECT_THAT(other.err, testing::HasSubstr("was trained in f32, from here on it is bf16"));
}

// Two starts at once in one fresh folder: the later one found no checkpoint, and waits for the lock of the first.
TEST(TheLaterOfTwoStarts, LeavesTheFirstOnesRunAlone) {
  namespace fs = std::filesystem;
  const Training first, later;
  ASSERT_EQ(first.run(0, {"--steps", "3"}).status, 0);
  fs::create_directory(later.out());
  const int lock = ::open((later.out() + "/.lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  ASSERT_EQ(::flock(lock, LOCK_EX | LOCK_NB), 0);
  Background job(later.command(0, {"--steps", "3", "--lr", "0.5"}), later.folder());
  ASSERT_TRUE(wait_until([&] { return fs::exists(later.out() + "/checkpoints") || !job.running(); }, 30)) << job.err();
  fs::copy(first.out(), later.out(), fs::copy_options::recursive | fs::copy_options::overwrite_existing);
  ::close(lock);
  const Outcome outcome = job.wait();
  EXPECT_EQ(outcome.status, 2);
  EXPECT_THAT(outcome.err, HasSubstr("another run has saved in"));
  expect_same_bits(first, later, 3);
}

TEST(AutomaticDtype, StandsAsItTookEffectInTheConfiguration) {
  const Training run;
  ASSERT_EQ(run.run(0, {"--steps", "1", "--dtype", "auto"}).status, 0);
  std::ifstream file(run.out() + "/config.cfg");
  const std::string config(std::istreambuf_iterator<char>(file), {});
  EXPECT_THAT(config, testing::AnyOf(testing::HasSubstr("dtype = f32"), testing::HasSubstr("dtype = bf16")));
}

}  // namespace
}  // namespace weft::test
