#include "core/nn/parameter_store.hpp"

#include <gtest/gtest.h>

#include <cmath>

#include "tests/unit/core/cpu_engine.hpp"

namespace weft {
namespace {

class ParameterStoreTest : public ::testing::Test {
 protected:
  CpuEngine engine;
};

TEST_F(ParameterStoreTest, NamesAreDottedAndDoubleNamesAreRefused) {
  ParameterStore store;
  const Builder build(store);
  const Builder block = build.child("blocks", 3).child("norm1");
  EXPECT_EQ(block.param("weight", Slice::whole({4}), Init::ones()).name(), "blocks.3.norm1.weight");
  EXPECT_THROW(block.param("weight", Slice::whole({4}), Init::ones()), Error);
}

TEST_F(ParameterStoreTest, InitialValuesDependOnGlobalIndicesAlone) {
  ParameterStore whole, part;
  whole.add("w", Slice::whole({8, 6}), Init::normal(0.5));
  Slice right;  // columns 3-5 of rows 2-5
  right.global_shape = {8, 6};
  right.boxes = {{{2, 3}, {4, 3}}};
  part.add("w", right, Init::normal(0.5));
  for (ParameterStore* store : {&whole, &part}) {
    store->allocate_values(engine.exec);
    store->initialize(engine.exec, 11);
  }
  const float* all = whole.find("w")->value().view().as<float>();
  const float* some = part.find("w")->value().view().as<float>();
  for (int row = 0; row < 4; ++row)
    for (int col = 0; col < 3; ++col) EXPECT_EQ(some[row * 3 + col], all[(row + 2) * 6 + col + 3]);
}

TEST_F(ParameterStoreTest, InitialValuesDoNotDependOnThreads) {
  ParameterStore one, many;
  for (ParameterStore* store : {&one, &many}) {
    store->add("w", Slice::whole({500, 701}), Init::uniform(1));
    store->allocate_values(engine.exec);
  }
  one.initialize(engine.exec, 3);
  CpuEngine three(3);
  many.initialize(three.exec, 3);
  const float* a = one.find("w")->value().view().as<float>();
  const float* b = many.find("w")->value().view().as<float>();
  for (int i = 0; i < 500 * 701; ++i) ASSERT_EQ(a[i], b[i]) << i;
}

TEST_F(ParameterStoreTest, FlatPlacesAreAlignedAndInReverseOrder) {
  ParameterStore store;
  store.add("first", Slice::whole({3}), Init::ones());
  store.add("second", Slice::whole({17, 2}), Init::ones());
  store.allocate_values(engine.exec);
  store.allocate_grads(engine.exec);
  ASSERT_EQ(store.places().size(), 2u);
  EXPECT_EQ(store.places()[0].parameter->name(), "second");
  EXPECT_EQ(store.places()[0].offset, 0);
  EXPECT_EQ(store.places()[1].offset, 48);
  EXPECT_EQ(store.find("first")->grad().view().as<float>(), store.flat_grads().view().as<float>() + 48);
  EXPECT_EQ(store.global_numel(), 37);
}

}  // namespace
}  // namespace weft
