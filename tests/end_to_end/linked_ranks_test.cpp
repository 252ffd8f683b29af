// Ranks that exchange device memory by links of their own (NCCL's groups over a library that passes messages between
// processes), on the fiber device: the ways of sharding, recorded and not, faults, and who may use links.
#include <gmock/gmock.h>

#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>

#include "fiber_device.hpp"

namespace weft::test {
namespace {

using testing::HasSubstr;

class LinkedRanks : public FiberDevice {
 protected:
  const Words links_ = {"CUDA_HOME=" WEFT_FAKE_NCCL_HOME, "WEFT_FAKE_NCCL_MEET=1"};

  Outcome train_linked(const std::string& out, const Words& more, int ranks, Words environment = {}) const {
    Words words = {"--dtype", "f32", "--gpu-comm", "nccl", "--batch", "8"};
    words.insert(words.end(), more.begin(), more.end());
    environment.insert(environment.end(), links_.begin(), links_.end());
    return train(out, "cuda", words, ranks, environment);
  }
  void expect_same(const std::string& one, const std::string& other) const {
    expect_near(column(one, "loss"), column(other, "loss"), 1e-5);
    expect_near(column(one, "grad_norm"), column(other, "grad_norm"), 5e-5);
    EXPECT_NEAR(std::stod(column(one, "valid_loss").at(steps)), std::stod(column(other, "valid_loss").at(steps)), 1e-4);
  }
};

struct Sharding {
  std::string name;
  int ranks;
  Words words;
};

TEST_F(LinkedRanks, TrainAsTheCpuDoesUnderEverySharding) {
  ASSERT_EQ(train("one_cpu", "cpu", {"--dtype", "f32", "--batch", "8"}).status, 0);
  const Sharding shardings[] = {
      {"dp2", 2, {}},
      {"uneven3", 3, {"--sp", "3"}},
      {"tp2", 2, {"--tp", "2"}},
      {"ring2", 2, {"--sp", "2", "--sp-attention", "ring"}},
      {"exchange2", 2, {"--sp", "2", "--sp-attention", "exchange"}},
      {"zero1", 2, {"--zero", "1"}},
      {"zero3", 2, {"--zero", "3", "--recompute", "block"}},
      {"all", 4, {"--tp", "2", "--zero", "2", "--micro-batch", "1"}},
  };
  for (const auto& [name, ranks, words] : shardings) {
    SCOPED_TRACE(name);
    const Outcome outcome = train_linked(name, words, ranks);
    ASSERT_EQ(outcome.status, 0) << outcome.err;
    EXPECT_THAT(outcome.err, testing::Not(HasSubstr("through host memory")));
    expect_same("one_cpu", name);
  }
}

TEST_F(LinkedRanks, RecurrencesOverTensorOrSequenceRanksTrainAsTheCpuDoesByLinksAndThroughTheHost) {
  for (const std::string model : {"lstm", "srupp"}) {
    const Words same = {"--dtype", "f32", "--batch", "8", "--model", model};
    ASSERT_EQ(train(model + "_cpu", "cpu", same).status, 0);
    for (const std::string axis : {"--tp", "--sp"}) {
      SCOPED_TRACE(model + axis);
      const Outcome linked = train_linked(model + axis, {"--model", model, axis, "2"}, 2);
      ASSERT_EQ(linked.status, 0) << linked.err;
      expect_same(model + "_cpu", model + axis);
      Words words = same;
      words.insert(words.end(), {axis, "2", "--gpu-comm", "mpi"});
      const Outcome staged = train(model + axis + "_staged", "cuda", words, 2);
      ASSERT_EQ(staged.status, 0) << staged.err;
      expect_same(model + "_cpu", model + axis + "_staged");
    }
  }
}

TEST_F(LinkedRanks, TheLensCountsTheBytesThatTheCpuCounts) {
  std::map<std::string, nlohmann::json> bytes;
  for (const std::string device : {"cpu", "cuda"}) {
    const Outcome outcome = weft(
        {"launch", "-n",        "2",    "--",      "lens",     "qrnn",       "attention",   "--axes", "sp",
         "tp",     "--lengths", "16",   "32",      "--widths", "32",         "--sequences", "2",      "--repeats",
         "1",      "--device",  device, "--dtype", "f32",      "--gpu-comm", "nccl",        "--out",  folder_ / device},
        links_);
    ASSERT_EQ(outcome.status, 0) << outcome.err;
    std::ifstream file(folder_ / (device + "/lens.json"));
    for (const auto& row : nlohmann::json::parse(file))
      if (!row.contains("misfit")) bytes[device].push_back(row.at("comm_bytes"));
  }
  EXPECT_GT(bytes["cpu"].size(), 6u);
  EXPECT_EQ(bytes["cuda"], bytes["cpu"]);
}

TEST_F(LinkedRanks, RecordedStepsWithTheirCollectivesGiveTheBitsOfEagerOnes) {
  for (const auto& [name, words] : {std::pair<std::string, Words>{"dp", {"--grad-wire", "bf16"}},
                                    {"tp", {"--tp", "2"}},
                                    {"steps", {"--model", "gru", "--tp", "2"}},
                                    {"zero1", {"--zero", "1", "--valid-every", "2"}},
                                    // A validation right before the recording, and one between replays.
                                    {"zero3", {"--zero", "3", "--valid-every", "2"}},
                                    {"zero3_later", {"--zero", "3", "--valid-every", "4"}}}) {
    SCOPED_TRACE(name);
    Words eager = words;
    eager.insert(eager.end(), {"--cuda-graph", "off"});
    ASSERT_EQ(train_linked(name + "_eager", eager, 2).status, 0);
    ASSERT_EQ(train_linked(name + "_recorded", words, 2).status, 0);
    for (const char* column_name : {"loss", "grad_norm", "valid_loss"})
      EXPECT_EQ(column(name + "_eager", column_name), column(name + "_recorded", column_name)) << column_name;
  }
}

TEST_F(LinkedRanks, AreRefusedOrGoThroughTheHostWhereThereAreNoLinks) {
  const Words nccl = {"--gpu-comm", "nccl"};
  const Outcome refused = train("refused", "cuda", nccl, 2, {"CUDA_HOME=/nowhere"});
  EXPECT_EQ(refused.status, 2) << refused.err;
  EXPECT_THAT(refused.err, HasSubstr("--gpu-comm: found nccl, but rank 0 on"));
  EXPECT_THAT(refused.err, HasSubstr("auto or mpi would be right"));
  const Outcome staged = train("staged", "cuda", {}, 2, {"CUDA_HOME=/nowhere"});
  EXPECT_EQ(staged.status, 0) << staged.err;
  EXPECT_THAT(staged.err, HasSubstr("GPUs exchange through host memory and MPI"));
}

TEST_F(LinkedRanks, AnAsynchronousErrorEndsTheJobAndNamesTheRankAndTheGroup) {
  const Outcome outcome =
      train_linked("broken", {"--steps", "1000", "--cuda-graph", "off"}, 2, {"WEFT_FAKE_NCCL_FAIL=1@9"});
  EXPECT_EQ(outcome.status, 3) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("rank 1 of 2 in group"));
  EXPECT_THAT(outcome.err, HasSubstr("remote process exited"));
}

// The end of its groups would wait for the rank that goes on.
TEST_F(LinkedRanks, ARankThatFailsAloneSaysWhyBeforeItsGroupsEnd) {
  for (const char* replay : {"auto", "off"}) {
    const Outcome outcome = train_linked(std::string("alone_") + replay, {"--steps", "100000", "--cuda-graph", replay},
                                         2, {"WEFT_TEST_COMM=all_reduce:dp+sp:first=5,count=1,rank=1,fail"});
    EXPECT_EQ(outcome.status, 3) << outcome.err;
    EXPECT_THAT(outcome.err, testing::ContainsRegex("rank 1 on [^,]+, step [0-9]+, [a-z]+: .*all_reduce"));
    EXPECT_THAT(outcome.err, testing::Not(HasSubstr("has waited")));
  }
}

TEST_F(LinkedRanks, AKilledRankEndsTheJob) {
  const Training run({"--device", "cuda", "--gpu-comm", "nccl"});
  const Outcome outcome = signal_rank_1(run, SIGKILL, links_);
  EXPECT_EQ(outcome.status, 3) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("was killed by SIGKILL"));
  EXPECT_TRUE(run.nobody_left());
}

TEST_F(LinkedRanks, AStoppedRankIsNamedWithTheCollectiveThatItKeepsOthersFrom) {
  const Training run({"--device", "cuda", "--gpu-comm", "nccl", "--timeout", "5"});
  const Outcome outcome = signal_rank_1(run, SIGSTOP, links_);
  EXPECT_EQ(outcome.status, 3) << outcome.err;
  EXPECT_THAT(outcome.err, HasSubstr("rank 1 (host"));
  EXPECT_THAT(outcome.err, testing::ContainsRegex("rank 0: step [0-9]+, [a-z]+, (running|waiting in) all_reduce"));
  EXPECT_TRUE(run.nobody_left());
}

}  // namespace
}  // namespace weft::test
