// The monitor's judgement, on a clock of the test's own.
#include "parallel/comm/heartbeat.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>

namespace weft::test {
namespace {

using testing::AllOf;
using testing::HasSubstr;
using testing::Not;

constexpr double timeout = 10;

class Monitor : public testing::Test {
 protected:
  /// Beats of `ranks` and judgements, ten a second, until `end` or a report.
  std::optional<std::string> run(double end, const std::vector<Heartbeat>& beats) {
    for (; now < end; now += 0.1) {
      for (Heartbeat beat : beats) {
        const auto rank = static_cast<std::size_t>(beat.rank);
        if (beat.in_collective) beat.stalled_seconds = std::max(0.0, now - stalled_begun[rank]);
        beat.phase_seconds = now - phase_begun[rank];
        monitor.observe(beat, now);
      }
      if (auto report = monitor.check(now)) return report;
    }
    return std::nullopt;
  }
  static Heartbeat computing(int rank, const std::string& phase = "forward", double allowed = 0) {
    Heartbeat beat;
    beat.rank = rank;
    beat.step = 3;
    beat.phase = phase;
    beat.phase_allowed = allowed;
    return beat;
  }
  static Heartbeat waiting(int rank, std::uint64_t sequence, const std::string& group = "dp",
                           std::vector<int> members = {0, 1, 2}) {
    Heartbeat beat = computing(rank, "backward");
    beat.in_collective = true;
    beat.awaited = true;
    beat.kind = CollectiveKind::all_reduce;
    beat.group = group;
    beat.group_id = group.size();
    beat.sequence = sequence;
    beat.lane = {group.size(), sequence};
    beat.lanes = {beat.lane};
    beat.bytes = 64;
    beat.members = std::move(members);
    return beat;
  }
  static Heartbeat in_ring(int rank, std::vector<int> peers) {
    Heartbeat beat = waiting(rank, 4, "sp", std::move(peers));
    beat.kind = CollectiveKind::send_recv;
    return beat;
  }

  double now = 0;
  std::array<double, 3> phase_begun{}, stalled_begun{};
  HeartbeatMonitor monitor{{{"a", 10}, {"a", 11}, {"b", 12}}, timeout, 0};
};

TEST_F(Monitor, IsContentWithRanksThatCompute) {
  EXPECT_EQ(run(100, {computing(0), computing(1), computing(2)}), std::nullopt);
}

TEST_F(Monitor, NamesASilentRankWithItsPlace) {
  run(5, {computing(0), computing(1), waiting(2, 4)});
  const auto report = run(100, {computing(0), computing(1)});
  ASSERT_TRUE(report);
  EXPECT_THAT(*report, AllOf(HasSubstr("rank 2 (host b, pid 12) has been silent for 10."),
                             HasSubstr("step 3, backward, waiting in all_reduce #4 of dp (64 bytes)"),
                             HasSubstr("ranks 0-1: step 3, forward, in no collective")));
  EXPECT_NEAR(now, 15, 0.3);
}

TEST_F(Monitor, NamesARankThatWasNeverHeard) {
  const auto report = run(100, {computing(0), computing(1)});
  ASSERT_TRUE(report);
  EXPECT_THAT(*report, HasSubstr("rank 2 (host b, pid 12) has been silent"));
  EXPECT_THAT(*report, HasSubstr("before its first heartbeat"));
}

TEST_F(Monitor, NamesTheRankThatOthersWaitFor) {
  const auto report = run(100, {waiting(0, 4), computing(1), waiting(2, 4)});
  ASSERT_TRUE(report);
  EXPECT_THAT(*report, AllOf(HasSubstr("rank 1 (host a, pid 11) is missing from all_reduce #4 of dp"),
                             HasSubstr("ranks 0,2: step 3, backward, waiting in all_reduce #4 of dp"),
                             Not(HasSubstr("rank 0 (host"))));
}

TEST_F(Monitor, NamesTheFirstCauseInAChainOfWaits) {
  // Rank 0 waits for rank 1, which waits for rank 2, which computes.
  const auto report = run(100, {waiting(0, 4, "dp", {0, 1}), waiting(1, 9, "tensor", {1, 2}), computing(2)});
  ASSERT_TRUE(report);
  EXPECT_THAT(*report, AllOf(HasSubstr("rank 2 (host b, pid 12) is missing from all_reduce #9 of tensor"),
                             Not(HasSubstr("rank 1 (host"))));
}

TEST_F(Monitor, NamesTheRankThatIsMissingFromARing) {
  const auto report = run(100, {in_ring(0, {1, 2}), in_ring(1, {2, 0}), computing(2)});
  ASSERT_TRUE(report);
  EXPECT_THAT(*report, AllOf(HasSubstr("rank 2 (host b, pid 12) is missing from send_recv"),
                             Not(HasSubstr("rank 0 (host")), Not(HasSubstr("rank 1 (host"))));
}

TEST_F(Monitor, IsContentWithRanksThatAllWaitInTheSameRing) {
  EXPECT_EQ(run(100, {in_ring(0, {1, 2}), in_ring(1, {2, 0}), in_ring(2, {0, 1})}), std::nullopt);
}

TEST_F(Monitor, NamesRanksInDifferentCollectives) {
  const auto report = run(100, {waiting(0, 4), waiting(1, 5), waiting(2, 4)});
  ASSERT_TRUE(report);
  EXPECT_THAT(*report, AllOf(HasSubstr("rank 0 (host a, pid 10) is missing from all_reduce #5 of dp"),
                             HasSubstr("rank 2 (host b, pid 12) is missing"), Not(HasSubstr("rank 1 (host"))));
}

TEST_F(Monitor, NamesRanksInDifferentCollectivesOfTheSamePlace) {
  Heartbeat other = waiting(1, 4);
  other.kind = CollectiveKind::all_gather;
  const auto report = run(100, {waiting(0, 4), other, waiting(2, 4)});
  ASSERT_TRUE(report);
  EXPECT_THAT(*report, HasSubstr("rank 1 (host a, pid 11) is missing from all_reduce #4 of dp"));
}

// They have just ended it, after a long wait, and rank 2 says so half a second later.
TEST_F(Monitor, DoesNotMissRanksThatHaveEndedTheCollective) {
  Heartbeat ended = computing(0), too = computing(1);
  ended.lanes = too.lanes = {{waiting(2, 4).lane.id, 4}};
  EXPECT_EQ(run(100, {ended, too, waiting(2, 4)}), std::nullopt);
  too.lanes.front().begun = 3;
  const auto report = run(200, {ended, too, waiting(2, 4)});
  ASSERT_TRUE(report);
  EXPECT_THAT(*report, AllOf(HasSubstr("rank 1 (host a, pid 11) is missing from all_reduce #4 of dp"),
                             Not(HasSubstr("rank 0 (host"))));
}

TEST_F(Monitor, DoesNotMissTheOtherSideOfAMessageThatHasJustEnded) {
  run(15, {in_ring(0, {1, 2}), in_ring(1, {2, 0}), in_ring(2, {0, 1})});
  phase_begun.fill(0);
  EXPECT_EQ(run(now + 0.05, {computing(0), computing(1), in_ring(2, {0, 1})}), std::nullopt);
}

TEST_F(Monitor, LetsARankTakeTheTimeThatItsPhaseIsAllowed) {
  const auto patient = run(50, {waiting(0, 4), computing(1, "checkpoint", 60), waiting(2, 4)});
  EXPECT_EQ(patient, std::nullopt);
  const auto late = run(100, {waiting(0, 4), computing(1, "checkpoint", 60), waiting(2, 4)});
  ASSERT_TRUE(late);
  EXPECT_THAT(*late, HasSubstr("it is in step 3, checkpoint"));
}

TEST_F(Monitor, LetsARankComputeForLongWhileItsPhasesChange) {
  // Gradient accumulation: rank 1 goes from micro-batch to micro-batch for far longer than the others have to.
  for (const double until : {9.0, 18.0, 27.0, 36.0, 45.0}) {
    phase_begun[1] = now;
    ASSERT_EQ(run(until, {waiting(0, 4), computing(1), waiting(2, 4)}), std::nullopt) << until;
    EXPECT_EQ(monitor.somebody_works(), now > timeout / 2);
  }
  const auto stopped = run(100, {waiting(0, 4), computing(1), waiting(2, 4)});
  ASSERT_TRUE(stopped);
  EXPECT_THAT(*stopped, HasSubstr("rank 1 (host a, pid 11) is missing from all_reduce #4 of dp"));
  EXPECT_NEAR(now, 46, 0.3);
  EXPECT_FALSE(monitor.somebody_works());
}

TEST_F(Monitor, DoesNotBlameARankThatWaitsForOneThatComputes) {
  // Rank 1 comes late to rank 0 because rank 2, which changes its phases, is later still.
  stalled_begun[1] = 6;
  for (const double until : {9.0, 14.0, 22.0}) {
    phase_begun[2] = now;
    ASSERT_EQ(run(until, {waiting(0, 4, "dp", {0, 1}), waiting(1, 9, "tensor", {1, 2}), computing(2)}), std::nullopt);
  }
}

TEST_F(Monitor, IsContentWithRanksThatAllWaitInTheSameCollective) {
  EXPECT_EQ(run(100, {waiting(0, 4), waiting(1, 4), waiting(2, 4)}), std::nullopt);
}

TEST_F(Monitor, CountsAfreshAfterItWasStoppedItself) {
  run(5, {computing(0), computing(1), computing(2)});
  now += 1000;
  EXPECT_EQ(run(1012, {computing(0), computing(1), computing(2)}), std::nullopt);
  const auto report = run(1100, {computing(0), computing(1)});
  ASSERT_TRUE(report);
  EXPECT_THAT(*report, HasSubstr("rank 2"));
}

TEST(Heartbeat, SurvivesItsEncoding) {
  Heartbeat beat;
  beat.rank = 3;
  beat.step = 1'000'000'000'000;
  beat.phase = "a phase whose name is longer than what is sent of it";
  beat.phase_allowed = 2.5;
  beat.in_collective = true;
  beat.kind = CollectiveKind::broadcast;
  beat.group = "dp+sp";
  beat.group_id = ~0ull;
  beat.sequence = 17;
  beat.bytes = 1ull << 40;
  beat.stalled_seconds = 1.25;
  beat.members = {0, 2, 4};
  beat.lane = {~0ull, 18};
  for (std::uint64_t id = 0; id < most_lanes; ++id) beat.lanes.push_back({~id, 1ull << 50});
  const auto bytes = encode(beat);
  EXPECT_LE(bytes.size(), largest_heartbeat(3));
  const auto other = decode_heartbeat(bytes);
  EXPECT_EQ(other.rank, 3);
  EXPECT_EQ(other.step, beat.step);
  EXPECT_EQ(other.phase, beat.phase.substr(0, 32));
  EXPECT_EQ(other.phase_allowed, 2.5);
  EXPECT_TRUE(other.in_collective);
  EXPECT_EQ(other.kind, CollectiveKind::broadcast);
  EXPECT_EQ(other.group, "dp+sp");
  EXPECT_EQ(other.group_id, ~0ull);
  EXPECT_EQ(other.sequence, 17u);
  EXPECT_EQ(other.bytes, 1ull << 40);
  EXPECT_EQ(other.stalled_seconds, 1.25);
  EXPECT_EQ(other.members, beat.members);
  EXPECT_EQ(other.lane.id, beat.lane.id);
  EXPECT_EQ(other.lane.begun, 18u);
  ASSERT_EQ(other.lanes.size(), most_lanes);
  EXPECT_EQ(other.lanes.back().id, beat.lanes.back().id);
  EXPECT_EQ(other.lanes.back().begun, 1ull << 50);
  EXPECT_THROW(decode_heartbeat(std::span(bytes).first(20)), Error);
}

}  // namespace
}  // namespace weft::test
