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
