// Over tensor-parallel ranks a model goes on from its states as one rank's does, and each holds its part of them.
#include <algorithm>
#include <numeric>

#include "models/registry.hpp"
#include "tests/distributed/mpi_test.hpp"
#include "tests/distributed/train/training.hpp"

namespace weft::test {
namespace {

/// Logits of all tokens, in pieces of the given lengths.
std::vector<float> logits(TrainingRun& run, const std::vector<std::int32_t>& text,
                          const std::vector<std::int64_t>& pieces, std::vector<MixerState>& states) {
  const LanguageModel& model = run.model();
  std::vector<float> all;
  std::int64_t at = 0;
  for (const std::int64_t piece : pieces) {
    const Tensor tokens = Tensor::empty(run.exec().memory(), {1, piece}, DType::i32, MemoryUse::activation);
    std::copy_n(text.begin() + at, piece, tokens.mut().as<std::int32_t>());
    OpContext cx{run.exec(), nullptr, DType::f32, {}, nullptr};
    cx.tokens = {0, seq, piece, {at, 0}, piece};
    const Tensor hidden = model.hidden(cx, tokens, &states);
    const Tensor found = model.logits(cx, hidden.reshaped({piece, hidden.shape()[2]}));
    const float* data = found.view().as<float>();
    all.insert(all.end(), data, data + found.numel());
    at += piece;
  }
  return all;
}

std::vector<MixerState> empty_states(TrainingRun& run) {
  return run.model().make_states(run.exec().memory(), 1, seq, DType::f32);
}

std::int64_t elements(const std::vector<MixerState>& states) {
  std::int64_t sum = 0;
  for (const MixerState& state : states) sum += state.tensors.front().numel();
  return sum;
}

TEST(CarriedStateTest, InPiecesOverTensorParallelRanksEqualsOneLongSequenceOnOne) {
  std::vector<std::int32_t> text(seq);
  for (std::size_t i = 0; i < text.size(); ++i) text[i] = static_cast<std::int32_t>(i * 7919 % 251);
  const auto self = make_self_communicator(comm_log());
  for (const MixerEntry& entry : mixers()) {
    if (!entry.shards_tp) continue;
    Layout layout;
    layout.mixer = entry.name;
    TrainingRun alone(*self, layout);
    layout.mesh = {1, 1, 1, world().size()};
    layout.sharding.tp_sequence = !entry.whole_rows;
    TrainingRun run(world(), layout);
    // SRU++ attends once its α is no longer 0.
    for (int step = 1; step <= 3; ++step) {
      alone.step(step);
      run.step(step);
    }
    std::vector<MixerState> alone_states = empty_states(alone);
    const std::vector<float> right = logits(alone, text, {seq}, alone_states);
    for (const std::vector<std::int64_t>& pieces :
         {std::vector<std::int64_t>{seq}, {1, 9, 1, 1, seq - 12}, std::vector<std::int64_t>(seq, 1)}) {
      std::vector<MixerState> states = empty_states(run);
      const std::vector<float> found = logits(run, text, pieces, states);
      ASSERT_EQ(found.size(), right.size());
      double apart = 0, size = 0;
      for (std::size_t i = 0; i < right.size(); ++i) {
        apart += std::pow(found[i] - right[i], 2);
        size += std::pow(right[i], 2);
      }
      EXPECT_LE(std::sqrt(apart), 1e-5 * std::sqrt(size)) << entry.name << " in " << pieces.size() << " pieces";
      std::int64_t held = elements(states);
      world().all_reduce(MutView(&held, {1}, DType::i64)).wait();
      EXPECT_EQ(held, elements(alone_states)) << entry.name << ": all ranks' parts of the states";
    }
  }
}

}  // namespace
}  // namespace weft::test
