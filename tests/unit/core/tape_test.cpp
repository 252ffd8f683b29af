#include "core/autograd/tape.hpp"

#include <gtest/gtest.h>

#include "core/nn/parameter_store.hpp"
#include "core/ops/linear.hpp"
#include "core/ops/norm.hpp"
#include "tests/unit/core/cpu_engine.hpp"

namespace weft {
namespace {

class TapeTest : public ::testing::Test {
 protected:
  CpuEngine engine;
  Tape tape;
  OpContext cx{engine.exec, &tape, DType::f32, {}, nullptr};

  Parameter& parameter(ParameterStore& store, const std::string& name, Shape shape) {
    return store.add(name, Slice::whole(shape), Init::normal(1));
  }
  void prepare(ParameterStore& store) {
    store.allocate_values(engine.exec);
    store.allocate_grads(engine.exec);
    store.initialize(engine.exec, 1);
    store.begin_step();
  }
  Tensor filled(Shape shape, float value) {
    Tensor tensor = Tensor::empty(*engine.memory, shape, DType::f32, MemoryUse::activation);
    engine.kernels.elementwise.fill(engine.exec, value, tensor.mut());
    return tensor;
  }
};

TEST_F(TapeTest, AChainOfAHundredThousandOperationsNeitherOverflowsNorLeaks) {
  const std::size_t before = engine.memory->stats().total_live;
  {
    Tape deep;
    OpContext context{engine.exec, &deep, DType::f32, {}, nullptr};
    deep.begin(MicroBatch::last);
    Tensor x = filled({1, 1}, 1);
    deep.watch(x);
    const Tensor leaf = x;
    const Tensor zero = filled({1, 1}, 0);
    for (int i = 0; i < 100000; ++i) x = ops::add(context, x, zero);
    EXPECT_EQ(deep.ledger().totals(Pass::forward).span, 100000);
    deep.backward(engine.exec, x);
    EXPECT_EQ(*deep.grad_of(leaf).view().as<float>(), 1.0f);
    EXPECT_EQ(deep.size(), 0u);
  }
  {
    Tape dropped;
    OpContext context{engine.exec, &dropped, DType::f32, {}, nullptr};
    Tensor x = filled({1, 1}, 1);
    dropped.watch(x);
    for (int i = 0; i < 100000; ++i) x = ops::add(context, x, x);
  }
  EXPECT_EQ(engine.memory->stats().total_live, before);
}

TEST_F(TapeTest, AValueUsedTwiceGetsTheSumAndTheIncomingGradientIsNotWritten) {
  tape.begin(MicroBatch::last);
  Tensor x = filled({2, 3}, 1);
  tape.watch(x);
  const Tensor y = ops::add(cx, x, x);
  const Tensor seed = filled({2, 3}, 3);
  tape.backward(engine.exec, y, seed);
  EXPECT_EQ(tape.grad_of(x).view().as<float>()[5], 6.0f);
  EXPECT_EQ(seed.view().as<float>()[5], 3.0f);
}

TEST_F(TapeTest, AParameterIsReadyOnceAStepAfterItsLastUseInTheLastMicroBatch) {
  ParameterStore store;
  Parameter& twice = parameter(store, "twice", {4, 4});
  Parameter& unused = parameter(store, "unused", {2, 2});
  prepare(store);
  int ready = 0, zero = 0;
  twice.on_grad_ready = [&](Parameter&) { ++ready; };
  unused.on_grad_ready = [&](Parameter& p) {
    ++zero;
    EXPECT_EQ(p.grad().view().as<float>()[3], 0.0f);
  };
  const auto micro_batch = [&](MicroBatch kind) {
    tape.begin(kind);
    const Tensor h = ops::linear(cx, filled({3, 4}, 1), twice, nullptr);
    const Tensor y = ops::linear(cx, h, twice, nullptr);
    EXPECT_EQ(ready, 0);
    tape.backward(engine.exec, y);
  };
  micro_batch(MicroBatch::inner);
  EXPECT_EQ(ready, 0);
  micro_batch(MicroBatch::last);
  EXPECT_EQ(ready, 1);
  finish_unused(engine.exec, store.all());
  EXPECT_EQ(ready, 1);
  EXPECT_EQ(zero, 1);
}

TEST_F(TapeTest, AParameterThatOnlyAnInnerMicroBatchUsedIsReadyAtTheEndWithItsGradient) {
  ParameterStore store;
  Parameter& w = parameter(store, "w", {2, 2});
  prepare(store);
  tape.begin(MicroBatch::inner);
  const Tensor y = ops::linear(cx, filled({1, 2}, 2), w, nullptr);
  tape.backward(engine.exec, y);
  tape.begin(MicroBatch::last);
  int ready = 0;
  w.on_grad_ready = [&](Parameter& p) {
    ++ready;
    EXPECT_EQ(p.grad().view().as<float>()[0], 2.0f);
  };
  finish_unused(engine.exec, store.all());
  EXPECT_EQ(ready, 1);
}

TEST_F(TapeTest, MicroBatchesAddUpAndANewStepStartsAfresh) {
  ParameterStore store;
  Parameter& w = parameter(store, "w", {1, 1});
  prepare(store);
  for (int step = 0; step < 2; ++step) {
    store.begin_step();
    for (const MicroBatch kind : {MicroBatch::inner, MicroBatch::inner, MicroBatch::last}) {
      tape.begin(kind);
      tape.backward(engine.exec, ops::linear(cx, filled({1, 1}, 5), w, nullptr));
    }
    EXPECT_EQ(*w.grad().view().as<float>(), 15.0f);
  }
}

TEST_F(TapeTest, HooksFireAroundEveryUseInBothPasses) {
  ParameterStore store;
  Parameter& w = parameter(store, "w", {2, 2});
  prepare(store);
  std::vector<std::string> calls;
  w.before_use = [&](Parameter&, Pass pass) { calls.push_back(pass == Pass::forward ? "before forward" : "before backward"); };
  w.after_use = [&](Parameter&, Pass pass) { calls.push_back(pass == Pass::forward ? "after forward" : "after backward"); };
  tape.begin(MicroBatch::last);
  Tensor x = filled({1, 2}, 1);
  tape.watch(x);
  tape.backward(engine.exec, ops::linear(cx, x, w, nullptr));
  EXPECT_EQ(calls, (std::vector<std::string>{"before forward", "after forward", "before backward", "after backward"}));
}

TEST_F(TapeTest, WithoutATapeNothingIsRecorded) {
  ParameterStore store;
  Parameter& w = parameter(store, "w", {2, 2});
  prepare(store);
  OpContext evaluation{engine.exec, nullptr, DType::f32, {}, nullptr};
  EXPECT_FALSE(ops::linear(evaluation, filled({1, 2}, 1), w, nullptr).on_tape());
}

TEST_F(TapeTest, TheLedgerCountsWorkOfBothPassesAndTheLongestChain) {
  ParameterStore store;
  Parameter& w = parameter(store, "w", {4, 4});
  prepare(store);
  tape.begin(MicroBatch::last);
  Tensor x = filled({8, 4}, 1);
  tape.watch(x);
  const Tensor a = ops::linear(cx, x, w, nullptr), b = ops::linear(cx, x, w, nullptr);
  const Tensor y = ops::add(cx, a, b);
  EXPECT_EQ(tape.ledger().totals(Pass::forward).flops, 2 * 2 * 8 * 4 * 4 + 32);
  EXPECT_EQ(tape.ledger().totals(Pass::forward).span, 2) << "the two products do not depend on each other";
  tape.backward(engine.exec, y);
  EXPECT_EQ(tape.ledger().totals(Pass::backward).flops, 2 * 4 * 8 * 4 * 4);
}

}  // namespace
}  // namespace weft
