// The program with its CUDA module over a stand-in for the CUDA runtime, whose kernels compute nothing: what people read when
// a GPU is missing, and when one fails in the midst of a training.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "run_weft.hpp"

namespace weft::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using Words = std::vector<std::string>;

class FakeGpu : public testing::Test {
 protected:
  FakeGpu() {
    std::string text;
    for (int i = 0; text.size() < 3000; ++i) text += "line " + std::to_string(i * i % 29) + " of warp and weft\n";
    data_ = folder_.write("text", text);
  }

  Outcome weft(const std::string& machine, const Words& words) const {
    Words all = {"env", "WEFT_CUDA_MODULE=" WEFT_FAKE_CUDA_MODULE, "WEFT_FAKE_CUDA=" + machine, weft_path()};
    all.insert(all.end(), words.begin(), words.end());
    return run_program(all, 60);
  }
  Outcome train(const std::string& machine, const Words& more = {}, const std::string& device = "cuda") const {
    Words words = {"train", "--quiet", "--data", data_, "--device", device};
    for (const auto& [option, value] : {std::pair{"steps", "6"},
                                        {"layers", "1"},
                                        {"d-model", "16"},
                                        {"heads", "2"},
                                        {"seq", "12"},
                                        {"batch", "4"},
                                        {"micro-batch", "2"},
                                        {"threads", "1"},
                                        {"valid-tokens", "40"}})
      words.insert(words.end(), {std::string("--") + option, value});
    words.insert(words.end(), more.begin(), more.end());
    return weft(machine, words);
  }
  Words out(const std::string& name) const { return {"--out", folder_ / name}; }

  TemporaryFolder folder_;
  std::string data_;
};

TEST_F(FakeGpu, IsTrainedOnWithRecordedStepsUnlessTheyAreOff) {
  const std::string no_recording = "fail=cudaStreamBeginCapture:900@1";
  for (const auto& [graph, machine] : {std::pair{"auto", std::string()}, {"off", no_recording}}) {
    const Outcome outcome = train(machine, {"--cuda-graph", graph, "--out", folder_ / graph});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
  }
}

TEST_F(FakeGpu, ThatIsMissingIsSaidInOneLineBeforeAnythingIsWritten) {
  for (const auto& [machine, reason] :
       {std::pair{"driver=0", "no NVIDIA driver was found"},
        {"driver=11040", "the NVIDIA driver is for CUDA 11.4, and one for CUDA"},
        {"devices=0", "the driver shows this process no GPU"},
        {"fail=cudaGetDeviceCount:802@1", "nvidia-fabricmanager"},
        {"fail=cudaSetDevice:46@1", "cudaErrorDevicesUnavailable"},
        {"kernels=0", "Fake GPU, sm_90 cannot run Weft's kernels, which were compiled for"},
        {"memory=10", "out of memory"}}) {
    SCOPED_TRACE(machine);
    const Outcome outcome = train(machine, out("none"));
    EXPECT_EQ(outcome.status, 2) << outcome.err;
    EXPECT_THAT(outcome.lines(), ElementsAre(testing::AllOf(HasSubstr("--device"), HasSubstr(reason))));
    EXPECT_THAT(folder_.entries(), ElementsAre("text"));
  }
}

TEST_F(FakeGpu, ThatIsMissingLeavesAutoToTheCpu) {
  const Outcome outcome = train("driver=0", out("auto"), "auto");
  EXPECT_EQ(outcome.status, 0) << outcome.err;
}

TEST_F(FakeGpu, ThatFailsWhileTrainingEndsTheRunWithTheCallAndItsReason) {
  for (const auto& [fault, reason] : {std::pair{"cudaStreamBeginCapture:900@1", "cudaStreamBeginCapture: reason 900"},
                                      {"cudaStreamEndCapture:901@1", "cudaStreamEndCapture: reason 901"},
                                      {"cudaGraphInstantiate:2@1", "cudaGraphInstantiate: reason 2"},
                                      {"cudaGraphLaunch:719@2", "cudaGraphLaunch: reason 719"},
                                      {"cudaLaunchKernel:701@150", "(cudaErrorLaunchOutOfResources)"},
                                      {"cudaMemcpyAsync:1@30", "cudaMemcpyAsync: reason 1"},
                                      {"kernel:700@150", "(cudaErrorIllegalAddress)"}}) {
    SCOPED_TRACE(fault);
    const Outcome outcome = train(std::string("fail=") + fault, out(fault));
    EXPECT_EQ(outcome.status, 3) << outcome.err;
    EXPECT_THAT(outcome.err, HasSubstr(reason));
  }
}

TEST_F(FakeGpu, ThatRunsOutOfMemoryWhileTrainingSaysWhatWasAskedForAndWhatIsFree) {
  const Outcome outcome = train("memory=2000000", out("full"));
  EXPECT_EQ(outcome.status, 3) << outcome.err;
  EXPECT_THAT(outcome.err,
              testing::ContainsRegex("out of memory: [0-9]+ bytes for [a-z]+ beside [0-9]+ in use.*; the GPU "
                                     "has [0-9]+ of 2000000 bytes free"));
}

}  // namespace
}  // namespace weft::test
