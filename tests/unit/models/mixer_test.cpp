// Every mixer of the registry, in the standard blocks: causality, and a carried state equal to one long sequence.
#include <gtest/gtest.h>

#include <algorithm>

#include "models/registry.hpp"
#include "tests/unit/models/tiny_model.hpp"

namespace weft {
namespace {

struct Case {
  std::string name;
  LmConfig config;
};

void PrintTo(const Case& mixer, std::ostream* out) { *out << mixer.name; }

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const MixerEntry& entry : mixers()) {
    for (const auto& [style, base] : {std::pair{"gpt", tiny_config()}, {"llama", tiny_llama_config()}}) {
      LmConfig config = base;
      config.mixer = entry.name;
      all.push_back({std::string(entry.name) + "_" + style, config});
    }
    if (entry.uses_heads) {
      LmConfig boom = tiny_config();
      boom.mixer = entry.name;
      boom.feed_forward = FeedForwardStyle::boom;
      all.push_back({std::string(entry.name) + "_boom", boom});
    }
    if (entry.positions != PositionStyle::none) continue;
    LmConfig plain = tiny_config();
    plain.mixer = entry.name;
    plain.positions = PositionStyle::none;
    all.push_back({std::string(entry.name) + "_no_positions", plain});
    plain.block = BlockStyle::plain;
    all.push_back({std::string(entry.name) + "_plain", plain});
  }
  return all;
}

class MixerTest : public ::testing::TestWithParam<Case> {
 protected:
  std::vector<std::int32_t> some_tokens(std::int64_t count) {
    std::vector<std::int32_t> tokens;
    for (std::int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<std::int32_t>(i * 7919 % 61));
    return tokens;
  }
};

INSTANTIATE_TEST_SUITE_P(Registry, MixerTest, ::testing::ValuesIn(cases()), [](const auto& row) {
  std::string name = row.param.name;
  std::ranges::replace(name, '-', '_');
  return name;
});

TEST_P(MixerTest, ALaterTokenDoesNotChangeEarlierLogits) {
  TinyModel tiny(GetParam().config);
  std::vector<std::int32_t> tokens = some_tokens(16);
  const std::vector<float> before = tiny.logits(tiny.ints(tokens, {1, 16}));
  tokens[9] = (tokens[9] + 1) % 61;
  const std::vector<float> after = tiny.logits(tiny.ints(tokens, {1, 16}));
  for (std::size_t i = 0; i < 9 * 61; ++i) ASSERT_EQ(before[i], after[i]) << "position " << i / 61;
  bool changed = false;
  for (std::size_t i = 15 * 61; i < 16 * 61; ++i) changed = changed || before[i] != after[i];
  EXPECT_TRUE(changed) << "the last position does not see position 9";
}

TEST_P(MixerTest, AStateCarriedInPiecesOfAnyLengthEqualsOneLongSequence) {
  TinyModel tiny(GetParam().config);
  const std::vector<std::int32_t> tokens = some_tokens(16);
  const std::vector<float> whole = tiny.logits(tiny.ints(tokens, {1, 16}));
  for (const std::vector<std::int64_t>& pieces :
       {std::vector<std::int64_t>{1, 1, 14}, {7, 9}, {5, 1, 1, 1, 8}, std::vector<std::int64_t>(16, 1)}) {
    std::vector<MixerState> states = tiny.model.make_states(*tiny.engine.memory, 1, 16, DType::f32);
    std::int64_t at = 0;
    for (const std::int64_t piece : pieces) {
      OpContext cx{tiny.engine.exec, nullptr, DType::f32, {}, nullptr};
      cx.tokens = {0, 16, piece, {at, 0}, piece};
      const auto begin = tokens.begin() + at;
      const Tensor hidden = tiny.model.hidden(cx, tiny.ints({begin, begin + piece}, {1, piece}), &states);
      const Tensor logits = tiny.model.logits(cx, hidden.reshaped({piece, hidden.shape()[2]}));
      const float* found = logits.view().as<float>();
      for (std::int64_t i = 0; i < piece * 61; ++i)
        ASSERT_NEAR(found[i], whole[static_cast<std::size_t>(at * 61 + i)], 1e-5) << "position " << at + i / 61;
      at += piece;
    }
  }
}

TEST_P(MixerTest, AStateThatWasResetIsAnEmptyOne) {
  TinyModel tiny(GetParam().config);
  const Tensor tokens = tiny.ints(some_tokens(16), {1, 16});
  const std::vector<float> fresh = tiny.logits(tokens);
  std::vector<MixerState> states = tiny.model.make_states(*tiny.engine.memory, 1, 16, DType::f32);
  for (int round = 0; round < 2; ++round) {
    for (MixerState& state : states) state.length = 0;
    OpContext cx = tiny.context(nullptr, 16);
    const Tensor hidden = tiny.model.hidden(cx, tokens, &states);
    const Tensor logits = tiny.model.logits(cx, hidden.reshaped({16, hidden.shape()[2]}));
    for (std::size_t i = 0; i < fresh.size(); ++i) ASSERT_NEAR(logits.view().as<float>()[i], fresh[i], 1e-5);
  }
}

// The gradient of a second segment alone, after a first one that was recorded or not.
std::vector<float> gradient_of_second_segment(TinyModel& tiny, const std::vector<std::int32_t>& tokens, bool record) {
  Tape tape;
  tiny.store.begin_step();
  tape.begin(MicroBatch::last);
  std::vector<MixerState> states = tiny.model.make_states(*tiny.engine.memory, 1, 16, DType::f32);
  const auto segment = [&](Tape* on, std::int64_t begin) {
    OpContext cx{tiny.engine.exec, on, DType::f32, {}, nullptr};
    cx.tokens = {0, 16, 8, {begin, 0}, 8};
    return tiny.model.hidden(cx, tiny.ints({tokens.begin() + begin, tokens.begin() + begin + 8}, {1, 8}), &states);
  };
  segment(record ? &tape : nullptr, 0);
  const Tensor hidden = segment(&tape, 8);
  // Not all ones: those the last norm would take for nothing.
  const Tensor seed = Tensor::empty(*tiny.engine.memory, hidden.shape(), DType::f32, MemoryUse::activation);
  for (std::int64_t i = 0; i < seed.numel(); ++i) seed.mut().as<float>()[i] = static_cast<float>(i * 37 % 11 - 5);
  tape.backward(tiny.engine.exec, hidden, seed);
  finish_unused(tiny.engine.exec, tiny.store.all());
  const float* grads = tiny.store.flat_grads().view().as<float>();
  return {grads, grads + tiny.store.flat_grads().numel()};
}

TEST_P(MixerTest, GradientsStopAtACarriedState) {
  TinyModel tiny(GetParam().config);
  if (!tiny.model.unbounded()) return;  // a state that grows serves decoding
  const std::vector<float> recorded = gradient_of_second_segment(tiny, some_tokens(16), true);
  const std::vector<float> alone = gradient_of_second_segment(tiny, some_tokens(16), false);
  for (std::size_t i = 0; i < alone.size(); ++i) ASSERT_EQ(recorded[i], alone[i]);
}

TEST_P(MixerTest, ShortAndOddBatchesTrain) {
  for (const auto& [batch, seq] : {std::pair<std::int64_t, std::int64_t>{1, 1}, {3, 5}, {1, 16}}) {
    for (const DType dtype : {DType::f32, DType::bf16}) {
      TinyModel tiny(GetParam().config, dtype);
      const Tensor tokens = tiny.ints(some_tokens(batch * seq), {batch, seq});
      const double loss = tiny.loss_and_gradients(tokens, tokens);
      EXPECT_NEAR(loss, std::log(61.0), 1.0);
      for (Parameter* parameter : tiny.store.all())
        for (std::int64_t i = 0; i < parameter->grad().numel(); ++i)
          ASSERT_TRUE(std::isfinite(parameter->grad().view().as<float>()[i])) << parameter->name();
    }
  }
}

TEST_P(MixerTest, MicroBatchesGiveTheGradientOfTheWholeBatch) {
  TinyModel tiny(GetParam().config);
  const std::vector<std::int32_t> tokens = some_tokens(3 * 16);
  const Tensor all = tiny.ints(tokens, {3, 16});
  tiny.loss_and_gradients(all, all);
  const float* grads = tiny.store.flat_grads().view().as<float>();
  const std::vector<float> whole(grads, grads + tiny.store.flat_grads().numel());

  Tape tape;
  tiny.store.begin_step();
  const Tensor weights = tiny.floats(16, 1);
  for (std::int64_t i = 0; i < 3; ++i) {
    OpContext cx = tiny.context(&tape, 16);
    tape.begin(i == 2 ? MicroBatch::last : MicroBatch::inner);
    const Tensor one = all.slice(i, i + 1);
    tape.backward(tiny.engine.exec,
                  tiny.model.loss(cx, one, {one.view().reshaped({16}), weights.view(), 1.0f / 48}).loss);
  }
  finish_unused(tiny.engine.exec, tiny.store.all());
  double apart = 0, size = 0;
  for (std::size_t i = 0; i < whole.size(); ++i) {
    apart += (grads[i] - whole[i]) * (grads[i] - whole[i]);
    size += whole[i] * whole[i];
  }
  EXPECT_LT(std::sqrt(apart), 1e-5 * std::sqrt(size));
}

}  // namespace
}  // namespace weft
