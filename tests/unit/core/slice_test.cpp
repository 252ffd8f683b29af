#include "core/tensor/slice.hpp"

#include <gtest/gtest.h>

#include <random>
#include <vector>

namespace weft {
namespace {

/// Global index of every local element, from the runs.
std::vector<std::int64_t> indices(const Slice& slice) {
  std::vector<std::int64_t> all;
  std::int64_t next = 0;
  slice.for_each_run([&](std::int64_t local, std::int64_t global, std::int64_t count) {
    EXPECT_EQ(local, next) << "runs are in local order without gaps";
    next += count;
    for (std::int64_t i = 0; i < count; ++i) all.push_back(global + i);
  });
  return all;
}

/// The same by walking each box element by element.
std::vector<std::int64_t> walked(const Slice& slice) {
  std::vector<std::int64_t> all;
  const Shape strides = contiguous_strides(slice.global_shape);
  for (const Box& box : slice.boxes)
    for (std::int64_t i = 0; i < box.size.numel(); ++i) {
      std::int64_t rest = i, global = 0;
      for (int dim = box.size.rank() - 1; dim >= 0; --dim) {
        global += (box.begin[dim] + rest % box.size[dim]) * strides[dim];
        rest /= box.size[dim];
      }
      all.push_back(global);
    }
  if (slice.flat) all = {all.begin() + (*slice.flat)[0], all.begin() + (*slice.flat)[1]};
  return all;
}

TEST(Slice, AWholeTensorIsOneRun) {
  const Slice slice = Slice::whole({3, 5, 2});
  int runs = 0;
  slice.for_each_run([&](std::int64_t, std::int64_t, std::int64_t count) {
    ++runs;
    EXPECT_EQ(count, 30);
  });
  EXPECT_EQ(runs, 1);
  EXPECT_EQ(slice.local_shape(), (Shape{3, 5, 2}));
}

TEST(Slice, FusedProjectionRowsFollowEachOther) {
  // Heads 2-3 of a fused query|key|value projection of 4 heads, 2 wide, over a width of 3.
  Slice slice;
  slice.global_shape = {24, 3};
  slice.boxes = {{{4, 0}, {4, 3}}, {{12, 0}, {4, 3}}, {{20, 0}, {4, 3}}};
  EXPECT_EQ(slice.local_shape(), (Shape{12, 3}));
  EXPECT_EQ(indices(slice), walked(slice));
}

TEST(Slice, RunsNameEveryElementOfAnyBoxesAndFlatRange) {
  std::mt19937 random(5);
  const auto below = [&](std::int64_t n) { return std::uniform_int_distribution<std::int64_t>(0, n - 1)(random); };
  for (int trial = 0; trial < 500; ++trial) {
    Slice slice;
    const int rank = static_cast<int>(below(4)) + 1;
    std::vector<std::int64_t> sizes;
    for (int dim = 0; dim < rank; ++dim) sizes.push_back(below(5) + 1);
    slice.global_shape = Shape(sizes);
    for (std::int64_t boxes = below(3) + 1; boxes > 0; --boxes) {
      Box box{slice.global_shape, slice.global_shape};
      for (int dim = 0; dim < rank; ++dim) {
        box.begin[dim] = below(sizes[static_cast<std::size_t>(dim)]);
        box.size[dim] = below(sizes[static_cast<std::size_t>(dim)] - box.begin[dim]) + 1;
        if (below(3) == 0) {
          box.begin[dim] = 0;
          box.size[dim] = sizes[static_cast<std::size_t>(dim)];
        }
      }
      slice.boxes.push_back(box);
    }
    if (below(2) == 0) {
      const std::int64_t count = slice.numel(), begin = below(count);
      slice.flat = {begin, begin + below(count - begin) + 1};
    }
    ASSERT_EQ(indices(slice), walked(slice)) << "trial " << trial;
    ASSERT_EQ(static_cast<std::int64_t>(walked(slice).size()), slice.numel());
    Slice cut = slice;
    cut.flat.reset();
    cut.boxes = slice.kept_boxes();
    ASSERT_EQ(walked(cut), walked(slice)) << "trial " << trial << ": as boxes";
    for (const Box& box : cut.boxes) ASSERT_GT(box.size.numel(), 0);
  }
}

TEST(Slice, AScalarHasOneElement) {
  const Slice slice = Slice::whole(Shape{});
  EXPECT_EQ(indices(slice), std::vector<std::int64_t>{0});
}

}  // namespace
}  // namespace weft
