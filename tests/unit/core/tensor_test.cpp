#include "core/tensor/tensor.hpp"

#include <gtest/gtest.h>

#include <limits>

#include "core/tensor/caching_allocator.hpp"

namespace weft {
namespace {

TEST(Bf16, RoundsToNearestEvenAndKeepsSpecialValues) {
  EXPECT_EQ(static_cast<float>(bf16(1.0f)), 1.0f);
  // 1 + 2^-8 lies halfway between 1 and 1 + 2^-7: to even, down. 1 + 3·2^-8: to even, up.
  EXPECT_EQ(static_cast<float>(bf16(1.0f + 0x1p-8f)), 1.0f);
  EXPECT_EQ(static_cast<float>(bf16(1.0f + 3 * 0x1p-8f)), 1.0f + 0x1p-6f);
  EXPECT_TRUE(std::isnan(static_cast<float>(bf16(std::numeric_limits<float>::quiet_NaN()))));
  EXPECT_EQ(static_cast<float>(bf16(std::numeric_limits<float>::infinity())), std::numeric_limits<float>::infinity());
  EXPECT_EQ(static_cast<float>(bf16(std::numeric_limits<float>::max())), std::numeric_limits<float>::infinity());
}

TEST(View, SlicesAndReshapesWithoutCopying) {
  float data[24];
  const MutView view(data, {2, 3, 4}, DType::f32);
  EXPECT_EQ(view.rows(), 6);
  EXPECT_EQ(view.cols(), 4);
  EXPECT_EQ(view.slice(1, 2).data, data + 12);
  EXPECT_EQ(view.reshaped({6, 4}).shape[0], 6);
  EXPECT_THROW(view.reshaped({5, 5}), Error);
  EXPECT_THROW(view.slice(1, 3), Error);
  EXPECT_THROW(view.as<double>(), Error);
}

TEST(Tensor, HandlesShareStorageAndKnowWhenTheyAreAlone) {
  const auto memory = make_caching_allocator(make_host_memory());
  Tensor tensor = Tensor::empty(*memory, {4, 5}, DType::f32, MemoryUse::activation);
  EXPECT_TRUE(tensor.unique());
  {
    const Tensor part = tensor.slice(1, 3);
    EXPECT_FALSE(tensor.unique());
    EXPECT_EQ(part.view().as<float>(), tensor.view().as<float>() + 5);
    EXPECT_THROW(tensor.window(10, {11}), Error);
  }
  EXPECT_TRUE(tensor.unique());
  tensor = {};
  EXPECT_EQ(memory->stats().total_live, 0u);
}

TEST(Tensor, UndefinedTensorsGiveEmptyViews) {
  const Tensor none;
  EXPECT_FALSE(none.view());
  EXPECT_FALSE(none.defined());
}

}  // namespace
}  // namespace weft
