// The fibers that CUDA kernels are tested on must find what a GPU would leave undefined.
#include <gtest/gtest.h>

#include <cmath>
#include <numeric>
#include <vector>

#include "core/cuda/device/reduce.hpp"
#include "core/cuda/launch.hpp"

namespace weft::cuda {
namespace {

template <class Kernel>
void run(const Kernel& kernel, std::int64_t blocks, std::size_t shared_bytes = 0) {
  fibers::run_grid(blocks, Kernel::threads, shared_bytes, [&](const Block& block) { kernel(block); });
}

template <class Kernel>
std::string error_of(const Kernel& kernel, std::int64_t blocks, std::size_t shared_bytes = 0) {
  try {
    run(kernel, blocks, shared_bytes);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

struct SumOfRow {
  static constexpr int threads = 96;
  const double* x;
  double* y;
  std::int64_t cols;
  void operator()(const Block& block) const {
    double sum = 0;
    for_block(block, cols, [&](std::int64_t i) { sum += x[block.index() * cols + i]; });
    sum = reduce_block(block, sum, Sum{}, block.shared<double>());
    const double again = reduce_block(block, sum, Max{}, block.shared<double>());
    if (block.thread() == 0) y[block.index()] = again;
  }
};

TEST(Fibers, AReductionSeesEveryThreadOfItsBlock) {
  std::vector<double> x(5 * 777), y(5);
  std::iota(x.begin(), x.end(), 1.0);
  run(SumOfRow{x.data(), y.data(), 777}, 5, reduce_bytes<double>);
  for (int row = 0; row < 5; ++row)
    EXPECT_EQ(y[static_cast<std::size_t>(row)], std::accumulate(x.begin() + row * 777, x.begin() + (row + 1) * 777, 0.0));
}

struct ShuffleAll {
  static constexpr int threads = 64;
  int* from;
  void operator()(const Block& block) const {
    int value = block.thread();
    value = block.shuffle_xor(value, 5);
    value = block.shuffle_down(value, 3);
    from[block.thread()] = block.shuffle(value, 31);
  }
};

TEST(Fibers, ShufflesStayWithinAWarp) {
  std::vector<int> from(64);
  run(ShuffleAll{from.data()}, 1);
  for (int thread = 0; thread < 64; ++thread) EXPECT_EQ(from[static_cast<std::size_t>(thread)], thread / 32 * 32 + (31 ^ 5));
}

struct SkipsABarrier {
  static constexpr int threads = 64;
  void operator()(const Block& block) const {
    if (block.thread() != 7) block.sync();
  }
};

TEST(Fibers, ABarrierThatAThreadSkipsIsAnError) {
  EXPECT_NE(error_of(SkipsABarrier{}, 1).find("63 of 64 threads wait"), std::string::npos);
}

struct WritesTooFar {
  static constexpr int threads = 32;
  void operator()(const Block& block) const { block.shared<float>()[block.thread()] = 1; }
};

TEST(Fibers, WritingPastSharedMemoryIsAnError) {
  EXPECT_EQ(error_of(WritesTooFar{}, 1, 32 * sizeof(float)), "");
  EXPECT_NE(error_of(WritesTooFar{}, 1, 31 * sizeof(float)).find("shared memory"), std::string::npos);
}

struct ReadsSharedUnset {
  static constexpr int threads = 32;
  float* y;
  void operator()(const Block& block) const { y[block.thread()] = block.shared<float>()[block.thread()]; }
};

TEST(Fibers, SharedMemoryIsNotANumberAtFirst) {
  std::vector<float> y(32);
  run(ReadsSharedUnset{y.data()}, 1, 128);
  for (const float value : y) EXPECT_TRUE(std::isnan(value));
}

struct ForgetsABarrier {
  static constexpr int threads = 64;
  int* y;
  void operator()(const Block& block) const {
    int* shared = block.shared<int>();
    shared[block.thread()] = block.thread();
    if (block.warp() == 0) y[block.index()] += shared[block.thread() + 32];
    block.sync();
  }
};

TEST(Fibers, AMissingBarrierGivesAnotherResultInTheNextBlock) {
  std::vector<int> y(2);
  run(ForgetsABarrier{y.data()}, 2, 64 * sizeof(int));
  EXPECT_NE(y[0], y[1]);
}

}  // namespace
}  // namespace weft::cuda
