// Every mixer where values are in memory around their uses alone and gradients from their first write on: what an operation
// reads at another time would not be there.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "models/registry.hpp"
#include "parallel/grad_buckets.hpp"
#include "parallel/shared_values.hpp"
#include "tests/unit/core/cpu_engine.hpp"
#include "tests/unit/models/tiny_model.hpp"

namespace weft {
namespace {

constexpr std::int64_t batch = 2, seq = 16;

struct Case {
  std::string name;
  LmConfig config;
};

void PrintTo(const Case& row, std::ostream* out) { *out << row.name; }

std::vector<Case> cases() {
  std::vector<Case> all;
  for (const MixerEntry& entry : mixers()) {
    LmConfig config = tiny_config();
    config.mixer = entry.name;
    config.layers = 3;
    all.push_back({std::string(entry.name), config});
    if (entry.positions != PositionStyle::none) continue;
    config.block = BlockStyle::plain;
    config.positions = PositionStyle::none;
    all.push_back({std::string(entry.name) + "_plain", config});
  }
  return all;
}

/// Loss and gradients of one step of two micro-batches.
struct Step {
  double loss = 0;
  std::vector<std::vector<float>> gradients;
  bool values_gone = true;  ///< after it
};

/// Around each use a parameter has its value; between uses it holds numbers that spoil every result.
void hide_values(ExecContext& exec, ParameterStore& store) {
  for (Parameter* parameter : store.all()) {
    const Tensor value = parameter->value();
    const Tensor spoilt = Tensor::empty(exec.memory(), value.shape(), DType::f32, MemoryUse::parameter);
    exec.kernels().elementwise.fill(exec, NAN, spoilt.mut());
    const auto uses = std::make_shared<int>(0);
    parameter->set_value(spoilt);
    parameter->before_use = [=](Parameter& p, Pass) {
      if ((*uses)++ == 0) p.set_value(value);
    };
    parameter->after_use = [=](Parameter& p, Pass) {
      if (--*uses == 0) p.set_value(spoilt);
    };
  }
}

enum class Values { as_they_are, hidden };

Step step(const LmConfig& config, ZeroStage zero, Recompute recompute, Values shown = Values::as_they_are) {
  CpuEngine engine;
  CommLog log;
  const std::unique_ptr<Communicator> world = make_self_communicator(log);
  Mesh mesh(*world, log, {});
  ParameterStore store;
  const LanguageModel model(BuildContext{Builder(store), mesh}, config);
  allocate_parameters(engine.exec, store, mesh, zero, 2000);
  store.initialize(engine.exec, 1);
  GradBuckets buckets(engine.exec, store, mesh, {zero});
  SharedValues values(engine.exec, store, mesh, zero);
  if (shown == Values::hidden) hide_values(engine.exec, store);
  Tensor tokens = Tensor::empty(*engine.memory, {batch, seq}, DType::i32, MemoryUse::activation);
  Tensor weights = Tensor::empty(*engine.memory, {batch * seq}, DType::f32, MemoryUse::activation);
  for (std::int32_t i = 0; i < batch * seq; ++i) tokens.mut().as<std::int32_t>()[i] = i * 7919 % 61;
  engine.kernels.elementwise.fill(engine.exec, 1.0f / (batch * seq), weights.mut());
  Step result;
  Tape tape;
  store.begin_step();
  buckets.begin_step();
  for (int round = 0; round < 2; ++round) {
    if (buckets.sums_each_round()) store.begin_step();
    if (buckets.sums_each_round() || round == 0) buckets.begin_round();
    OpContext cx{engine.exec, &tape, DType::f32, {}, nullptr};
    cx.tokens = {0, seq, seq, {0, 0}, seq};
    cx.recompute = recompute;
    tape.begin(buckets.sums_each_round() || round == 1 ? MicroBatch::last : MicroBatch::inner);
    values.begin_pass();
    const ops::CrossEntropy loss =
        model.loss(cx, tokens, {tokens.view().reshaped({batch * seq}), weights.view(), 1.0f});
    result.loss += *loss.loss.view().as<double>();
    tape.backward(engine.exec, loss.loss);
    values.end_pass();
    if (buckets.sums_each_round() || round == 1) finish_unused(engine.exec, store.all());
  }
  buckets.finish();
  values.updated();
  for (const ParameterStore::Place& place : store.places()) {
    const Tensor grad = store.stored_grad(place).data;
    const float* data = grad.view().as<float>();
    result.gradients.emplace_back(data, data + grad.numel());
    result.values_gone = result.values_gone && !place.parameter->value().defined();
  }
  return result;
}

class ZeroTest : public ::testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(Registry, ZeroTest, ::testing::ValuesIn(cases()), [](const auto& row) {
  std::string name = row.param.name;
  std::ranges::replace(name, '-', '_');
  return name;
});

TEST_P(ZeroTest, GradientsAreThoseOfParametersThatStay) {
  const Step whole = step(GetParam().config, ZeroStage::none, Recompute::none);
  for (const ZeroStage zero : {ZeroStage::gradients, ZeroStage::parameters})
    for (const Recompute recompute : {Recompute::none, Recompute::block}) {
      const Step shared = step(GetParam().config, zero, recompute);
      EXPECT_EQ(shared.loss, whole.loss);
      EXPECT_EQ(shared.values_gone, zero == ZeroStage::parameters);
      ASSERT_EQ(shared.gradients.size(), whole.gradients.size());
      // Two equal micro-batches: twice one's gradient, added up in either way.
      for (std::size_t i = 0; i < whole.gradients.size(); ++i)
        for (std::size_t j = 0; j < whole.gradients[i].size(); ++j)
          ASSERT_NEAR(shared.gradients[i][j], whole.gradients[i][j], 1e-5f * (1e-2f + std::abs(whole.gradients[i][j])))
              << "parameter " << i;
    }
}

TEST_P(ZeroTest, ValuesAreReadInsideUsesAlone) {
  for (const Recompute recompute : {Recompute::none, Recompute::block}) {
    const Step right = step(GetParam().config, ZeroStage::none, recompute);
    const Step found = step(GetParam().config, ZeroStage::none, recompute, Values::hidden);
    EXPECT_EQ(found.loss, right.loss);
    EXPECT_EQ(found.gradients, right.gradients);
  }
}

}  // namespace
}  // namespace weft
