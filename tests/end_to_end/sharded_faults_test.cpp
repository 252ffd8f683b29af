// A rank that is killed, stopped or fails in the middle of a step of each kind of parallelism: every rank ends, the message
// says who, where and in what, and the last checkpoint resumes.
#include <gmock/gmock.h>

#include <csignal>

#include "faults.hpp"

namespace weft::test {
namespace {

using testing::ContainsRegex;

struct Kind {
  std::string name;
  int ranks;
  Words layout;
  std::string group;  ///< whose collectives the kind adds
  std::string fault;  ///< a rule of the test communicator for one of them, some steps after the first checkpoint
};

const Kind kinds[] = {
    {"Tensor", 2, {"--tp", "2"}, "tp", "reduce_scatter:tp:first=80,count=1,rank=1,fail"},
    {"Ring", 2, {"--sp", "2", "--sp-attention", "ring"}, "sp", "send_recv:sp:first=40,count=1,rank=1,fail"},
    {"Exchange", 2, {"--sp", "2", "--sp-attention", "exchange"}, "sp", "all_to_all:sp:first=40,count=1,rank=1,fail"},
    {"OptimizerShares", 2, {"--zero", "1"}, "dp\\+sp", "reduce_scatter:dp+sp:first=20,count=1,rank=1,fail"},
    {"GradientShares", 2, {"--zero", "2"}, "dp\\+sp", "reduce_scatter:dp+sp:first=20,count=1,rank=1,fail"},
    {"ParameterShares", 2, {"--zero", "3"}, "dp\\+sp", "all_gather:dp+sp:first=80,count=1,rank=1,fail"},
    {"AllAtOnce",
     4,
     {"--tp", "2", "--zero", "3", "--recompute", "block"},
     "tp",
     "all_gather:tp:first=150,count=1,rank=1,fail"}};

std::ostream& operator<<(std::ostream& stream, const Kind& row) { return stream << row.name; }

enum class Fault { killed, stopped, fails };

class FaultOfEachParallelism : public testing::TestWithParam<std::tuple<Kind, Fault>> {};

TEST_P(FaultOfEachParallelism, EndsAllRanksNamesThePlaceAndResumes) {
  const auto& [kind, fault] = GetParam();
  const Training run({"--checkpoint-every", "5", "--timeout", "4", "--heads", "4", "--layers", "2"});
  Words layout = kind.layout;
  // The operation that fails comes so soon after a save's step that the save would still be in progress.
  if (fault == Fault::fails) layout.insert(layout.end(), {"--async-checkpoint", "off"});
  Words words = run.command(kind.ranks, layout);
  if (fault == Fault::fails) words.insert(words.begin(), {"env", "WEFT_TEST_COMM=" + kind.fault});
  Background job(words, run.folder());
  if (fault != Fault::fails) {
    ASSERT_TRUE(wait_until([&] { return run.last_checkpoint() > 0 || !job.running(); })) << job.err();
    const auto ranks = run.ranks();
    ASSERT_EQ(static_cast<int>(ranks.size()), kind.ranks) << job.err();
    ::kill(ranks.at(1), fault == Fault::killed ? SIGKILL : SIGSTOP);
  }
  const Outcome outcome = job.wait();
  EXPECT_EQ(outcome.status, 3) << outcome.err;
  const std::string collective = "[a-z_]+ #[0-9]+ of [a-z+]+";
  switch (fault) {
    case Fault::killed:
      EXPECT_THAT(outcome.err, ContainsRegex("rank 1 on " + host_name() +
                                             " was killed by SIGKILL; it was in step [0-9]+, [a-z]+.*" + collective));
      break;
    case Fault::stopped:
      EXPECT_THAT(outcome.err, ContainsRegex("rank 1 \\(host " + host_name() +
                                             ", pid [0-9]+\\) has been silent.*step [0-9]+, [a-z]+"));
      EXPECT_THAT(outcome.err, ContainsRegex("ranks? 0[0-9,-]*: step [0-9]+, [a-z]+, (waiting in|running) " + collective));
      break;
    case Fault::fails:
      EXPECT_THAT(outcome.err, ContainsRegex("rank 1 on " + host_name() + ", step [0-9]+, [a-z]+: [a-z_]+ of " +
                                             kind.group + " failed"));
      break;
  }
  EXPECT_TRUE(run.nobody_left());
  const std::int64_t saved = run.last_checkpoint();
  ASSERT_GT(saved, 0);
  Words more = kind.layout;
  more.insert(more.end(), {"--steps", std::to_string(saved + 2)});
  const Outcome resumed = run.run(kind.ranks, more);
  EXPECT_EQ(resumed.status, 0) << resumed.err;
  EXPECT_THAT(resumed.err, testing::HasSubstr("resumed at step " + std::to_string(saved)));
}

std::string case_name(const testing::TestParamInfo<std::tuple<Kind, Fault>>& row) {
  constexpr const char* faults[] = {"Killed", "Stopped", "Fails"};
  return std::get<Kind>(row.param).name + faults[static_cast<std::size_t>(std::get<Fault>(row.param))];
}

INSTANTIATE_TEST_SUITE_P(Table, FaultOfEachParallelism,
                         testing::Combine(testing::ValuesIn(kinds),
                                          testing::Values(Fault::killed, Fault::stopped, Fault::fails)),
                         case_name);

}  // namespace
}  // namespace weft::test
