// Every mixer in every block style, trained on the device and on the CPU (docs/numerics.md says what equal is).
#include <gtest/gtest.h>

#include "models/registry.hpp"
#include "tests/gpu/device_under_test.hpp"
#include "tests/gpu/training.hpp"
#include "tests/unit/op_cases/check.hpp"

namespace weft::test {
namespace {

struct Case {
  std::string name;
  LmConfig config;
};

void PrintTo(const Case& model, std::ostream* out) { *out << model.name; }

LmConfig gpt_style() {
  LmConfig config;
  config.layers = 2;
  config.d_model = 32;
  config.heads = config.kv_heads = 4;
  config.d_ff = 96;
  config.max_seq = 17;
  config.dropout = 0.1f;
  return config;
}

LmConfig llama_style() {
  LmConfig config = gpt_style();
  config.norm = NormStyle::rms;
  config.feed_forward = FeedForwardStyle::swiglu;
  config.positions = PositionStyle::rotary;
  config.bias = config.tied = false;
  config.kv_heads = 2;
  config.dropout = 0;
  return config;
}

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const MixerEntry& entry : mixers()) {
    for (const auto& [style, base] : {std::pair{"gpt", gpt_style()}, {"llama", llama_style()}}) {
      LmConfig config = base;
      config.mixer = entry.name;
      all.push_back({fmt::format("{}_{}", entry.name, style), config});
    }
    if (entry.positions != PositionStyle::none) continue;
    LmConfig plain = gpt_style();
    plain.mixer = entry.name;
    plain.block = BlockStyle::plain;
    plain.positions = PositionStyle::none;
    all.push_back({fmt::format("{}_plain", entry.name), plain});
  }
  return all;
}

TrainingPlan plan_of(const LmConfig& config, DType compute = DType::f32) {
  TrainingPlan plan;
  plan.config = config;
  plan.compute = compute;
  return plan;
}

class GpuModels : public testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(Registry, GpuModels, testing::ValuesIn(cases()),
                         [](const auto& row) { return test_name(row.param.name); });

void expect_equal(const Training& right, const Training& found) {
  const Apart apart = compare(right, found);
  EXPECT_LE(apart.gradient, 1e-5) << "gradient of " << apart.parameter;
  EXPECT_LE(apart.loss, 1e-5);
  EXPECT_LE(apart.grad_norm, 5e-5);
}

TEST_P(GpuModels, TrainInF32AsOnTheCpu) {
  const TrainingPlan plan = plan_of(GetParam().config);
  expect_equal(train(open_host(), plan), train(open_gpu(), plan));
}

TEST_P(GpuModels, TrainInBf16AsOnTheCpuToItsPrecision) {
  const TrainingPlan plan = plan_of(GetParam().config, DType::bf16);
  const Apart apart = compare(train(open_host(), plan), train(open_gpu(), plan));
  EXPECT_LE(apart.all_gradients, 3e-2);
  EXPECT_LE(apart.loss, 5e-3);
}

TEST_P(GpuModels, ARecordedStepAndASecondRunGiveTheSameBits) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    SCOPED_TRACE(name_of(dtype));
    TrainingPlan plan = plan_of(GetParam().config, dtype);
    plan.steps = 6;
    const Training recorded = train(open_gpu(), plan);
    EXPECT_TRUE(recorded == train(open_gpu(), plan)) << "a second run gave other bits";
    plan.replay = StepReplay::off;
    EXPECT_TRUE(recorded == train(open_gpu(), plan)) << "without a recorded step there are other bits";
  }
}

// Without this the comparisons above would hold for anything.
TEST(GpuComparison, SeesAnotherRateOfDropout) {
  TrainingPlan plan = plan_of(gpt_style());
  plan.steps = 1;
  const Training right = train(open_host(), plan);
  plan.config.dropout = 0.11f;
  EXPECT_GT(compare(right, train(open_gpu(), plan)).gradient, 1e-3);
}

// The shapes of GPT-2 124M, where the fast paths of products and attention are taken. On a CPU alone this takes minutes.
LmConfig gpt2() {
  LmConfig config;
  config.vocab = 50257;
  config.layers = 12;
  config.d_model = 768;
  config.heads = config.kv_heads = 12;
  config.d_ff = 3072;
  config.max_seq = 128;
  return config;
}

TEST(GpuGpt2Large, TrainsInF32AsOnTheCpuWhileItLearns) {
  TrainingPlan plan = plan_of(gpt2());
  plan.steps = 30;
  const Training right = train(open_host(), plan);
  EXPECT_GT(right.losses.front() - right.losses.back(), 1.0);
  expect_equal(right, train(open_gpu(), plan));
}

TEST(GpuGpt2Large, TrainsInBf16CloseToF32AndTwiceToTheSameBits) {
  TrainingPlan plan = plan_of(gpt2());
  plan.config.max_seq = 1024;
  plan.steps = 5;
  const Training right = train(open_gpu(), plan);
  plan.compute = DType::bf16;
  const Training found = train(open_gpu(), plan);
  const Apart apart = compare(right, found);
  EXPECT_LE(apart.all_gradients, 3e-2);
  EXPECT_LE(apart.loss, 5e-3);
  EXPECT_TRUE(found == train(open_gpu(), plan)) << "a second run gave other bits";
}

}  // namespace
}  // namespace weft::test
