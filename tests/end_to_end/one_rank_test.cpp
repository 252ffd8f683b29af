// The program of a build without MPI: main and the room's stand-in before the library that has MPI.
#include <gmock/gmock.h>

#include <filesystem>

#include "faults.hpp"

namespace weft::test {
namespace {

using testing::HasSubstr;

Words without_mpi(Words words) {
  words.front() = WEFT_ONE_RANK_PROGRAM;
  return words;
}

TEST(OneRank, TrainsToTheSameBitsAndResumes) {
  const Training alone({"--steps", "6", "--checkpoint-every", "3"});
  const Training usual({"--steps", "6", "--checkpoint-every", "3"});
  const Outcome first = run_program(without_mpi(alone.train({"--steps", "3"})));
  ASSERT_EQ(first.status, 0) << first.err;
  const Outcome second = run_program(without_mpi(alone.train()));
  ASSERT_EQ(second.status, 0) << second.err;
  const Outcome expected = usual.run(0);
  ASSERT_EQ(expected.status, 0) << expected.err;
  EXPECT_EQ(alone.last_step(), 6);
  EXPECT_EQ(alone.step_values(), usual.step_values());
  EXPECT_EQ(alone.checkpoint_data(6), usual.checkpoint_data(6));
}

TEST(OneRank, SaysWhatIsWrongOnceAndHasNoMpi) {
  const Training training;
  const Outcome wrong = run_program(without_mpi(training.train({"--tp", "2"})));
  EXPECT_EQ(wrong.status, 2);
  EXPECT_EQ(wrong.lines().size(), 1u) << wrong.err;
  const Outcome doctor = run_program({WEFT_ONE_RANK_PROGRAM, "doctor"});
  EXPECT_EQ(doctor.status, 0) << doctor.err;
  EXPECT_THAT(doctor.out, HasSubstr("MPI            none: one rank"));
}

TEST(OneRank, IsWhatLaunchAndTheDemoStart) {
  const Training launched;
  Words words = {WEFT_ONE_RANK_PROGRAM, "launch", "--"};
  const Words train = launched.train({"--steps", "2"});
  words.insert(words.end(), train.begin() + 1, train.end());
  const Outcome one = run_program(words);
  EXPECT_EQ(one.status, 0) << one.err;
  EXPECT_EQ(launched.last_step(), 2);
  words.insert(words.begin() + 2, {"-n", "2"});
  const Outcome two = run_program(words);
  EXPECT_EQ(two.status, 2);
  EXPECT_THAT(two.err, HasSubstr("-n: found 2, but this build has no MPI (WEFT_MPI) and runs one rank"));
  const TemporaryFolder folder;
  const Outcome demo = run_program({WEFT_ONE_RANK_PROGRAM, "demo", "--out", folder / "demo", "--steps", "2", "--layers",
                                    "1", "--d-model", "16", "--heads", "2", "--tokens", "5", "--device", "cpu"},
                                   120);
  EXPECT_EQ(demo.status, 0) << demo.err;
  EXPECT_TRUE(std::filesystem::exists(folder / "demo/report.html"));
}

TEST(OneRank, SavesAndStopsWhenLaunchIsTold) {
  const Training run;
  Words words = {WEFT_ONE_RANK_PROGRAM, "launch", "--"};
  const Words train = run.train({"--steps", "100000"});
  words.insert(words.end(), train.begin() + 1, train.end());
  Background job(words, run.folder());
  ASSERT_TRUE(wait_until([&] { return run.last_step() >= 2 || !job.running(); }));
  ASSERT_TRUE(job.running()) << job.err();
  job.signal(SIGTERM);
  const Outcome outcome = job.wait();
  EXPECT_EQ(outcome.status, 75) << outcome.err;
  EXPECT_TRUE(run.nobody_left());
}

TEST(OneRank, RefusesToBeOneOfMany) {
  const Training training;
  Words words = training.bare_mpirun(2);
  for (std::string& word : words)
    if (word == weft_path()) word = WEFT_ONE_RANK_PROGRAM;
  const Outcome outcome = run_program(words);
  EXPECT_EQ(outcome.status, 2) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("found 2 ranks of mpirun, but this build has no MPI"));
  EXPECT_FALSE(std::filesystem::exists(training.out()));
}

}  // namespace
}  // namespace weft::test
