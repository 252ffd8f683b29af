#include "core/tensor/caching_allocator.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <vector>

#include "core/base/error.hpp"

namespace weft {
namespace {

/// Counts what is asked of the system, and can be exhausted.
class CountedMemory final : public RawMemory {
 public:
  struct Counts {
    int allocations = 0;
    std::size_t live = 0;
    std::size_t capacity = SIZE_MAX;
  };
  explicit CountedMemory(Counts& counts) : counts_(counts), host_(make_host_memory()) {}
  DeviceId device() const override { return {}; }
  void* allocate(std::size_t bytes) override {
    if (counts_.live + bytes > counts_.capacity) return nullptr;
    ++counts_.allocations;
    counts_.live += bytes;
    return host_->allocate(bytes);
  }
  void deallocate(void* data, std::size_t bytes) noexcept override {
    counts_.live -= bytes;
    host_->deallocate(data, bytes);
  }

 private:
  Counts& counts_;
  std::unique_ptr<RawMemory> host_;
};

TEST(CachingAllocator, ASteadyLoopAsksTheSystemForNothing) {
  CountedMemory::Counts counts;
  const auto memory = make_caching_allocator(std::make_unique<CountedMemory>(counts));
  const std::vector<std::size_t> sizes = {1, 64, 513, 4096, 100000, 5000001};
  int after_first = 0;
  for (int round = 0; round < 5; ++round) {
    std::vector<void*> blocks;
    for (const std::size_t size : sizes) blocks.push_back(memory->allocate(size, MemoryUse::activation));
    for (std::size_t i = 0; i < sizes.size(); ++i) memory->deallocate(blocks[i], sizes[i], MemoryUse::activation);
    if (round == 0) after_first = counts.allocations;
  }
  EXPECT_EQ(counts.allocations, after_first);
}

TEST(CachingAllocator, BlocksAreAlignedAndDistinct) {
  const auto memory = make_caching_allocator(make_host_memory());
  void* a = memory->allocate(3, MemoryUse::workspace);
  void* b = memory->allocate(3, MemoryUse::workspace);
  EXPECT_NE(a, b);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(a) % 64, 0u);
  EXPECT_EQ(reinterpret_cast<std::uintptr_t>(b) % 64, 0u);
  memory->deallocate(a, 3, MemoryUse::workspace);
  memory->deallocate(b, 3, MemoryUse::workspace);
}

TEST(CachingAllocator, CountsLiveAndPeakByUse) {
  const auto memory = make_caching_allocator(make_host_memory());
  void* a = memory->allocate(4096, MemoryUse::parameter);
  void* b = memory->allocate(8192, MemoryUse::gradient);
  memory->deallocate(b, 8192, MemoryUse::gradient);
  const MemoryStats stats = memory->stats();
  EXPECT_EQ(stats.live[static_cast<int>(MemoryUse::parameter)], 4096u);
  EXPECT_EQ(stats.live[static_cast<int>(MemoryUse::gradient)], 0u);
  EXPECT_EQ(stats.peak[static_cast<int>(MemoryUse::gradient)], 8192u);
  EXPECT_EQ(stats.total_live, 4096u);
  EXPECT_EQ(stats.total_peak, 12288u);
  memory->deallocate(a, 4096, MemoryUse::parameter);
}

TEST(CachingAllocator, TheLimitIsRefusedWithTheUseNamed) {
  const auto memory = make_caching_allocator(make_host_memory(), {10000});
  void* a = memory->allocate(8192, MemoryUse::parameter);
  try {
    memory->allocate(4096, MemoryUse::optimizer);
    FAIL() << "the limit was passed";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("optimizer"), std::string::npos) << error.what();
  }
  memory->deallocate(a, 8192, MemoryUse::parameter);
  void* b = memory->allocate(8192, MemoryUse::optimizer);
  memory->deallocate(b, 8192, MemoryUse::optimizer);
}

TEST(CachingAllocator, KeptBlocksCountUnderTheLimit) {
  CountedMemory::Counts counts;
  const auto memory = make_caching_allocator(std::make_unique<CountedMemory>(counts), {10000});
  for (const std::size_t size : {8192u, 4096u, 6144u, 9216u}) {
    void* data = memory->allocate(size, MemoryUse::activation);
    EXPECT_LE(counts.live, 10000u);
    memory->deallocate(data, size, MemoryUse::activation);
  }
}

TEST(CachingAllocator, GivesCachedBlocksBackBeforeItFails) {
  CountedMemory::Counts counts;
  counts.capacity = 10000;
  const auto memory = make_caching_allocator(std::make_unique<CountedMemory>(counts));
  void* a = memory->allocate(8192, MemoryUse::activation);
  memory->deallocate(a, 8192, MemoryUse::activation);
  void* b = memory->allocate(9216, MemoryUse::activation);
  EXPECT_NE(b, nullptr);
  memory->deallocate(b, 9216, MemoryUse::activation);
}

TEST(CachingAllocator, APoolsBlocksGoToNobodyElseWhileItsHandleLives) {
  CountedMemory::Counts counts;
  const auto memory = make_caching_allocator(std::make_unique<CountedMemory>(counts), {.limit_bytes = 10000});
  void* before = memory->allocate(4096, MemoryUse::activation);
  memory->begin_pool();
  void* inside = memory->allocate(4096, MemoryUse::activation);
  memory->deallocate(inside, 4096, MemoryUse::activation);
  EXPECT_EQ(memory->allocate(4096, MemoryUse::activation), inside) << "the pool does not reuse its own";
  memory->deallocate(before, 4096, MemoryUse::activation);
  memory->deallocate(inside, 4096, MemoryUse::activation);
  std::shared_ptr<void> pool = memory->end_pool();

  EXPECT_EQ(memory->allocate(4096, MemoryUse::activation), before);
  EXPECT_THROW(memory->allocate(4096, MemoryUse::activation), Error) << "what the pool holds is not counted";
  pool.reset();
  EXPECT_EQ(memory->allocate(4096, MemoryUse::activation), inside) << "a pool's blocks are lost with it";
  memory->deallocate(before, 4096, MemoryUse::activation);
  memory->deallocate(inside, 4096, MemoryUse::activation);
}

TEST(CachingAllocator, ABlockThatOutlivesItsPoolComesBack) {
  CountedMemory::Counts counts;
  const auto memory = make_caching_allocator(std::make_unique<CountedMemory>(counts));
  memory->begin_pool();
  void* kept = memory->allocate(100, MemoryUse::parameter);
  memory->end_pool().reset();
  memory->deallocate(kept, 100, MemoryUse::parameter);
  EXPECT_EQ(memory->allocate(100, MemoryUse::parameter), kept);
  memory->deallocate(kept, 100, MemoryUse::parameter);
  EXPECT_EQ(counts.allocations, 1);
}

}  // namespace
}  // namespace weft
