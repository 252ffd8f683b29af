// Recomputed blocks of every mixer: the same bits, less memory, and work that is counted apart.
#include <gtest/gtest.h>

#include <algorithm>

#include "models/registry.hpp"
#include "tests/unit/models/tiny_model.hpp"

namespace weft {
namespace {

constexpr std::int64_t batch = 2, seq = 16;

struct Passed {
  double loss = 0;
  std::vector<float> gradients;
  std::vector<std::string> ready;  ///< parameters in the order in which their hooks fired
  std::size_t kept = 0;            ///< bytes of activations between forward and backward
  std::size_t peak = 0;
  CostLedger::Totals forward, backward, recomputed;
};

/// Two micro-batches of one step.
Passed pass(LmConfig config, Recompute recompute, DType dtype = DType::f32) {
  TinyModel tiny(config, dtype);
  Passed result;
  for (Parameter* parameter : tiny.store.all())
    parameter->on_grad_ready = [&](Parameter& p) { result.ready.push_back(p.name()); };
  std::vector<std::int32_t> numbers;
  for (std::int32_t i = 0; i < batch * seq; ++i) numbers.push_back(i * 7919 % 61);
  const Tensor tokens = tiny.ints(numbers, {batch, seq}), weights = tiny.floats(batch * seq, 1.0f / (batch * seq));
  std::vector<PhiloxKey> keys;
  for (int site = 0; site < tiny.model.dropout_sites(); ++site)
    keys.push_back(philox_key(3, 1, static_cast<std::uint64_t>(site)));
  const std::size_t before = tiny.engine.memory->stats().live[static_cast<int>(MemoryUse::activation)];
  tiny.store.begin_step();
  Tape tape;
  for (const MicroBatch kind : {MicroBatch::inner, MicroBatch::last}) {
    OpContext cx = tiny.context(&tape, seq);
    cx.dropout_keys = keys.data();
    cx.recompute = recompute;
    tape.begin(kind);
    const ops::CrossEntropy loss =
        tiny.model.loss(cx, tokens, {tokens.view().reshaped({batch * seq}), weights.view(), 1.0f});
    result.loss = *loss.loss.view().as<double>();
    result.kept = tiny.engine.memory->stats().live[static_cast<int>(MemoryUse::activation)] - before;
    tape.backward(tiny.engine.exec, loss.loss);
  }
  finish_unused(tiny.engine.exec, tiny.store.all());
  result.peak = tiny.engine.memory->stats().peak[static_cast<int>(MemoryUse::activation)];
  result.forward = tape.ledger().totals(Pass::forward);
  result.backward = tape.ledger().totals(Pass::backward);
  result.recomputed = tape.ledger().totals(Pass::recomputed);
  const float* grads = tiny.store.flat_grads().view().as<float>();
  result.gradients.assign(grads, grads + tiny.store.flat_grads().numel());
  return result;
}

class RecomputeTest : public ::testing::TestWithParam<std::string> {
 protected:
  LmConfig config(std::int64_t layers = 4) const {
    LmConfig made = tiny_config();
    made.mixer = GetParam();
    made.layers = layers;
    made.dropout = 0.1f;
    return made;
  }
};

INSTANTIATE_TEST_SUITE_P(Registry, RecomputeTest, ::testing::ValuesIn([] {
                           std::vector<std::string> names;
                           for (const MixerEntry& entry : mixers()) names.emplace_back(entry.name);
                           return names;
                         }()),
                         [](const auto& row) {
                           std::string name = row.param;
                           std::ranges::replace(name, '-', '_');
                           return name;
                         });

TEST_P(RecomputeTest, GivesTheSameBitsAndTheSameOrderOfReadyGradients) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Passed whole = pass(config(), Recompute::none, dtype);
    ASSERT_TRUE(std::ranges::any_of(whole.gradients, [](float x) { return x != 0; }));
    for (const Recompute recompute : {Recompute::attention, Recompute::block}) {
      const Passed again = pass(config(), recompute, dtype);
      EXPECT_EQ(again.loss, whole.loss);
      EXPECT_EQ(again.gradients, whole.gradients);
      EXPECT_EQ(again.ready, whole.ready);
    }
  }
}

TEST_P(RecomputeTest, ABlockKeepsItsTwoInputsAlone) {
  const std::size_t one = pass(config(5), Recompute::block).kept - pass(config(4), Recompute::block).kept;
  EXPECT_EQ(one, 2 * batch * seq * 32 * sizeof(float));
}

TEST_P(RecomputeTest, MemoryFalls) {
  const Passed none = pass(config(), Recompute::none), mixer = pass(config(), Recompute::attention),
               block = pass(config(), Recompute::block);
  EXPECT_LT(block.peak, none.peak);
  EXPECT_LT(block.kept, mixer.kept);
  EXPECT_LE(mixer.kept, none.kept);
}

TEST_P(RecomputeTest, CostsStandApart) {
  const Passed none = pass(config(), Recompute::none), block = pass(config(), Recompute::block);
  EXPECT_EQ(none.recomputed.flops, 0);
  EXPECT_EQ(block.forward.flops, none.forward.flops);
  EXPECT_EQ(block.forward.span, none.forward.span);
  EXPECT_DOUBLE_EQ(block.backward.flops, none.backward.flops);
  EXPECT_EQ(block.backward.span_min, none.backward.span_min);
  EXPECT_GT(block.backward.span, none.backward.span);
  // All but embedding, last norm and head.
  EXPECT_GT(block.recomputed.flops, 0);
  EXPECT_LT(block.recomputed.flops, none.forward.flops);
}

}  // namespace
}  // namespace weft
