// `weft launch` around ranks that are told to stop or are killed.
#include <gmock/gmock.h>

#include "run_weft.hpp"

namespace weft::test {
namespace {

using testing::HasSubstr;

// Runs a launch in a shell, waits for its first metrics row, then does `act` with $P (the launch) and $R (its ranks).
Outcome launch_and(const TemporaryFolder& folder, const std::string& act) {
  std::string text;
  for (int i = 0; i < 400; ++i) text += "line " + std::to_string(i * 7919) + " of a text\n";
  folder.write("data.txt", text);
  const std::string script = R"(
    "$0" launch -n 2 -- train --data "$1/data.txt" --out "$1/out" --layers 1 --d-model 32 --heads 2 --seq 16 --batch 4 \
      --steps 100000000 --valid-every 0 --checkpoint-every 0 &
    P=$!
    for i in $(seq 600); do [ -s "$1/out/metrics.jsonl" ] && break; kill -0 $P 2>/dev/null || break; sleep 0.1; done
    M=$(pgrep -P $P mpirun); R=$(pgrep -P $M)
    )" + act + R"(
    wait $P; S=$?
    for p in $R; do kill -0 $p 2>/dev/null && echo "rank $p is left" >&2; done
    exit $S)";
  return run_program({"bash", "-c", script, weft_path(), folder.path().string()}, 180);
}

class StopTest : public testing::TestWithParam<const char*> {};

TEST_P(StopTest, SavesAndEndsWith75) {
  const TemporaryFolder folder;
  const Outcome outcome = launch_and(folder, std::string("kill -") + GetParam() + " $P");
  EXPECT_EQ(outcome.status, 75) << outcome.err;
  EXPECT_FALSE(std::filesystem::is_empty(folder / "out/checkpoints"));
  EXPECT_THAT(outcome.err, testing::Not(HasSubstr("is left")));
}

INSTANTIATE_TEST_SUITE_P(Signals, StopTest, testing::Values("TERM", "INT", "USR1"),
                         [](const auto& row) { return row.param; });

TEST(LaunchFaults, AKilledRankIsNamedAndNobodyIsLeft) {
  const TemporaryFolder folder;
  const Outcome outcome = launch_and(folder, "kill -KILL ${R##*[[:space:]]}");
  EXPECT_EQ(outcome.status, 3) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("was killed by SIGKILL"));
  EXPECT_THAT(outcome.err, testing::Not(HasSubstr("is left")));
}

TEST(LaunchFaults, AKilledMpirunLeavesNobody) {
  const TemporaryFolder folder;
  const Outcome outcome = launch_and(folder, "kill -KILL $M");
  EXPECT_EQ(outcome.status, 3) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("mpirun was killed by SIGKILL"));
  EXPECT_THAT(outcome.err, testing::Not(HasSubstr("is left")));
}

}  // namespace
}  // namespace weft::test
