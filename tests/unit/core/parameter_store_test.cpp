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

TEST_F(ParameterStoreTest, RanksTogetherKeepEachElementOnceWhateverTheSizes) {
  for (const int ranks : {1, 2, 3, 5, 8})
    for (const std::size_t bytes : {1, 300, 1 << 20}) {
      std::vector<std::vector<int>> kept;
      std::int64_t size = 0;
      for (int rank = 0; rank < ranks; ++rank) {
        ParameterStore store;
        for (const std::int64_t count : {1, 16, 17, 33, 2, 64, 5, 129})
          store.add(fmt::format("blocks.{}.w{}", count % 2, count), Slice::whole({count}), Init::ones());
        FlatCut cut;
        cut.bucket_bytes = bytes;
        cut.at_units = bytes == 300;
        cut.share = [&](const Slice&) { return FlatCut::Share{ranks, rank}; };
        store.lay_out(cut);
        store.allocate_values(engine.exec, FlatExtent::kept);
        EXPECT_EQ(store.flat_values().numel(), store.kept_size());
        EXPECT_EQ(store.kept_size() * ranks, store.flat_size());
        EXPECT_TRUE(rank == 0 || store.flat_size() == size) << "ranks cut differently";
        size = store.flat_size();
        kept.resize(store.places().size());
        for (std::size_t i = 0; i < store.places().size(); ++i) {
          const ParameterStore::Place& place = store.places()[i];
          kept[i].resize(static_cast<std::size_t>(place.count));
          const ParameterStore::Stored stored = store.stored_value(place);
          EXPECT_EQ(stored.data.numel(), stored.slice.numel());
          stored.slice.for_each_run([&](std::int64_t, std::int64_t global, std::int64_t count) {
            for (std::int64_t at = global; at < global + count; ++at) ++kept[i][static_cast<std::size_t>(at)];
          });
        }
      }
      for (const std::vector<int>& counts : kept)
        for (const int count : counts) ASSERT_EQ(count, 1) << ranks << " ranks, buckets of " << bytes;
    }
}

}  // namespace
}  // namespace weft
