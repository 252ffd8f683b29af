// Jobs with a rank that stops, stays away, does something else or dies: they end soon, with a report that names it.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <string>

#include "parallel/comm/flight_recorder.hpp"

namespace weft::test {
namespace {

using testing::AllOf;
using testing::AnyOf;
using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

struct Ended {
  int status = -1;
  std::string output;
};

/// A job that hangs gets status 124.
Ended run(int ranks, const std::string& scenario, int odd_rank, const std::string& path = "") {
  const std::string command = fmt::format("timeout --kill-after=10 90 {} {} {} {} {} {} 2>&1", WEFT_MPI_COMMAND, ranks,
                                          WEFT_FAULT_PROGRAM, scenario, odd_rank, path);
  Ended ended;
  FILE* pipe = ::popen(command.c_str(), "r");
  if (!pipe) return ended;
  char buffer[4096];
  while (const auto count = std::fread(buffer, 1, sizeof buffer, pipe)) ended.output.append(buffer, count);
  const int status = ::pclose(pipe);
  ended.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return ended;
}

class StoppedRank : public testing::TestWithParam<std::pair<int, int>> {};

TEST_P(StoppedRank, IsNamedWithWhatItWasDoing) {
  const auto [ranks, odd] = GetParam();
  const auto ended = run(ranks, "stop", odd);
  EXPECT_EQ(ended.status, 3) << ended.output;
  EXPECT_THAT(ended.output, ContainsRegex(fmt::format("rank {} \\(host .*, pid [0-9]+\\) has been silent", odd)));
  EXPECT_THAT(ended.output, HasSubstr("step 12, forward"));
  EXPECT_THAT(ended.output, HasSubstr("waiting in all_reduce #1 of world"));
}
INSTANTIATE_TEST_SUITE_P(Ranks, StoppedRank,
                         testing::Values(std::pair(2, 0), std::pair(2, 1), std::pair(4, 0), std::pair(4, 1),
                                         std::pair(4, 3)));

TEST(MissingRank, IsNamedWithThoseWhoWait) {
  for (const int odd : {0, 2}) {
    const auto ended = run(3, "stay-away", odd);
    EXPECT_EQ(ended.status, 3) << ended.output;
    EXPECT_THAT(ended.output,
                ContainsRegex(fmt::format("rank {} \\(host .*, pid [0-9]+\\) is missing from all_reduce #1 of "
                                          "world .*it is in step 12, data, in no collective",
                                          odd)));
    EXPECT_THAT(ended.output, HasSubstr(odd == 0 ? "ranks 1-2: step 12, forward, waiting in all_reduce #1 of world"
                                                 : "ranks 0-1: step 12, forward, waiting in all_reduce #1 of world"));
  }
}

TEST(MissingRank, IsFoundByTheReceiverOfItsMessage) {
  const auto ended = run(2, "never-send", 1);
  EXPECT_EQ(ended.status, 3) << ended.output;
  EXPECT_THAT(ended.output, ContainsRegex("rank 1 \\(host .*, pid [0-9]+\\) is missing from recv #0 of world"));
}

TEST(Mismatch, NamesBothRanksAndTheirCollectives) {
  const auto operations = run(2, "different-operation", 1);
  EXPECT_EQ(operations.status, 3) << operations.output;
  EXPECT_THAT(operations.output,
              AnyOf(HasSubstr("rank 0 in all_reduce #1 of 1000 f32, rank 1 in all_gather #1 of 1000 f32"),
                    HasSubstr("rank 1 in all_gather #1 of 1000 f32, rank 0 in all_reduce #1 of 1000 f32")));
  for (const char* scenario : {"different-size", "different-large-size"}) {
    const auto sizes = run(3, scenario, 1);
    EXPECT_EQ(sizes.status, 3) << sizes.output;
    EXPECT_THAT(sizes.output, AnyOf(ContainsRegex("rank 1 in all_reduce #1 of 100[01]*0* f32, rank [02] in all_reduce"),
                                    ContainsRegex("rank [02] in all_reduce #1 of [0-9]* f32, rank 1 in all_reduce")));
  }
}

TEST(Mismatch, OfALargeAndASmallSizeWritesNothingPastTheSmall) {
  for (int round = 0; round < 3; ++round) {
    const auto ended = run(2, "large-against-small", 0);
    EXPECT_EQ(ended.status, 3) << ended.output;
    EXPECT_THAT(ended.output, AnyOf(HasSubstr("rank 0 in all_reduce #1 of 4 f32, rank 1 in all_reduce"),
                                    HasSubstr("rank 1 in all_reduce #1 of 524288 f32, rank 0 in all_reduce")));
  }
  const auto message = run(2, "large-message", 0);
  EXPECT_EQ(message.status, 3) << message.output;
  EXPECT_THAT(message.output, HasSubstr("rank 0: rank 1 sent 2097152 bytes where 16 were expected"));
}

TEST(FalseAlarm, IsNotRaisedForComputationOrAnAnnouncedPause) {
  const auto ended = run(3, "slow-but-well", 1);
  EXPECT_EQ(ended.status, 0) << ended.output;
  EXPECT_THAT(ended.output, Not(AnyOf(HasSubstr("silent"), HasSubstr("missing"))));
}

TEST(FalseAlarm, IsNotRaisedWhileALateRankGoesFromPhaseToPhase) {
  const auto ended = run(3, "accumulate", 1);
  EXPECT_EQ(ended.status, 0) << ended.output;
  EXPECT_THAT(ended.output, Not(AnyOf(HasSubstr("silent"), HasSubstr("missing"), HasSubstr("not moved"))));
}

TEST(KilledRank, LeavesAFlightRecord) {
  const auto path = std::filesystem::temp_directory_path() / fmt::format("weft-fault-{}-", ::getpid());
  const auto ended = run(2, "die", 1, path.string());
  EXPECT_NE(ended.status, 0);
  EXPECT_NE(ended.status, 124) << "the job hung";
  const auto record = read_flight_record(path.string() + "1");
  for (const char* rank : {"0", "1"}) std::filesystem::remove(path.string() + rank);
  EXPECT_EQ(record.step, 5);
  ASSERT_EQ(record.entries.size(), 2u);
  EXPECT_GT(record.entries[0].ended_ns, 0);
  EXPECT_EQ(record.entries[1].ended_ns, 0);
  EXPECT_THAT(format_flight_record(record), HasSubstr("in flight"));
}

TEST(Agreement, IsBoundedWhenARankDoesNotAnswer) {
  const auto ended = run(3, "answer-not", 2);
  EXPECT_NE(ended.status, 124) << "the job hung";
  EXPECT_THAT(ended.output, AllOf(HasSubstr("rank 0: all alive: no"), HasSubstr("rank 1: all alive: no")));
}

TEST(EarlyEnd, DoesNotHangInFinalize) {
  for (const int odd : {0, 1}) {
    const auto ended = run(2, "leave-early", odd);
    EXPECT_NE(ended.status, 0);
    EXPECT_NE(ended.status, 124) << "the job hung";
    EXPECT_THAT(ended.output, HasSubstr(fmt::format("rank {} gives up", odd)));
  }
}

}  // namespace
}  // namespace weft::test
