#include "core/tensor/caching_allocator.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <iterator>
#include <mutex>
#include <unordered_map>
#include <vector>

#include "core/base/error.hpp"

namespace weft {
namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;

class HostMemory final : public RawMemory {
 public:
  DeviceId device() const override { return {}; }
  void* allocate(std::size_t bytes) override {
    const bool large = bytes >= 2 * huge_page;
    const std::size_t alignment = large ? huge_page : 64;
    void* data = std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
    if (data && large) madvise(data, bytes, MADV_HUGEPAGE);
    return data;
  }
  void deallocate(void* data, std::size_t) noexcept override { std::free(data); }
};

// Eight classes a doubling: at most 12.5% is lost to rounding.
std::size_t size_class(std::size_t bytes) {
  if (bytes <= 512) return std::max<std::size_t>(64, (bytes + 63) / 64 * 64);
  const std::size_t step = std::bit_floor(bytes - 1) / 8;
  return (bytes + step - 1) / step * step;
}

class SizeClassAllocator final : public CachingAllocator {
 public:
  SizeClassAllocator(std::unique_ptr<RawMemory> memory, AllocatorOptions options)
      : memory_(std::move(memory)), options_(options) {}

  ~SizeClassAllocator() override { release_cached(); }

  DeviceId device() const override { return memory_->device(); }

  void* allocate(std::size_t bytes, MemoryUse use) override {
    const std::size_t size = size_class(bytes);
    const std::lock_guard lock(mutex_);
    void* data = take_cached(size);
    if (!data) {
      const std::size_t needed = stats_.total_live + reserved_ + size, limit = options_.limit_bytes;
      if (limit && needed > limit)
        throw OutOfMemory(fmt::format(
            "out of memory: {} bytes for {} beside {} in use and {} that recorded steps keep pass the limit of {}",
            size, name_of(use), stats_.total_live, reserved_, limit));
      if (limit && needed + cached_ > limit) release_cached();
      data = memory_->allocate(size);
    }
    if (!data) {
      release_cached();
      data = memory_->allocate(size);
    }
    if (!data) {
      const std::string left = memory_->left();
      throw OutOfMemory(
          fmt::format("out of memory: {} bytes for {} beside {} in use and {} that recorded steps keep{}{}", size,
                      name_of(use), stats_.total_live, reserved_, left.empty() ? "" : "; ", left));
    }
    if (pool_) pool_of_[data] = pool_;
    count(size, use);
    return data;
  }

  void deallocate(void* data, std::size_t bytes, MemoryUse use) noexcept override {
    const std::size_t size = size_class(bytes);
    const std::lock_guard lock(mutex_);
    stats_.live[static_cast<std::size_t>(use)] -= size;
    stats_.total_live -= size;
    const auto pool = pool_of_.find(data);
    if (pool != pool_of_.end()) {
      pool->second->free[size].push_back(data);
      reserved_ += size;
      return;
    }
    cached_ += size;
    free_[size].push_back(data);
  }

  void release_unused() override {
    const std::lock_guard lock(mutex_);
    release_cached();
  }

  void begin_pool() override {
    const std::lock_guard lock(mutex_);
    WEFT_CHECK(!pool_, "a pool within a pool");
    pool_ = std::make_shared<Pool>();
  }

  std::shared_ptr<void> end_pool() override {
    const std::lock_guard lock(mutex_);
    WEFT_CHECK(pool_, "no pool was begun");
    // The pool itself lives on in pool_of_ until its handle dies.
    return {static_cast<void*>(pool_.get()), [this, pool = std::exchange(pool_, nullptr)](void*) { dissolve(*pool); }};
  }

  MemoryStats stats() const override {
    const std::lock_guard lock(mutex_);
    return stats_;
  }

  std::size_t most_held() const override {
    const std::lock_guard lock(mutex_);
    return most_held_;
  }

 private:
  using FreeBlocks = std::unordered_map<std::size_t, std::vector<void*>>;
  struct Pool {
    FreeBlocks free;
  };

  void* take_cached(std::size_t size) {
    FreeBlocks& blocks = pool_ ? pool_->free : free_;
    const auto found = blocks.find(size);
    if (found == blocks.end() || found->second.empty()) return nullptr;
    void* data = found->second.back();
    found->second.pop_back();
    (pool_ ? reserved_ : cached_) -= size;
    return data;
  }

  // Blocks that are still in use come back like any other.
  void dissolve(Pool& pool) {
    const std::lock_guard lock(mutex_);
    std::erase_if(pool_of_, [&](const auto& owned) { return owned.second.get() == &pool; });
    for (auto& [size, blocks] : pool.free) {
      cached_ += size * blocks.size();
      reserved_ -= size * blocks.size();
      std::ranges::move(blocks, std::back_inserter(free_[size]));
    }
    pool.free.clear();
  }

  void release_cached() {
    for (auto& [size, blocks] : free_) {
      for (void* data : blocks) memory_->deallocate(data, size);
      blocks.clear();
    }
    cached_ = 0;
  }

  void count(std::size_t size, MemoryUse use) {
    auto& live = stats_.live[static_cast<std::size_t>(use)];
    live += size;
    stats_.total_live += size;
    auto& peak = stats_.peak[static_cast<std::size_t>(use)];
    peak = std::max(peak, live);
    stats_.total_peak = std::max(stats_.total_peak, stats_.total_live);
    most_held_ = std::max(most_held_, stats_.total_live + reserved_);
  }

  std::unique_ptr<RawMemory> memory_;
  AllocatorOptions options_;
  mutable std::mutex mutex_;
  FreeBlocks free_;
  std::shared_ptr<Pool> pool_;  ///< that blocks are taken from now
  std::unordered_map<void*, std::shared_ptr<Pool>> pool_of_;
  std::size_t cached_ = 0;    ///< bytes of the blocks in free_
  std::size_t reserved_ = 0;  ///< of free blocks of all pools
  std::size_t most_held_ = 0;
  MemoryStats stats_;
};

}  // namespace

std::unique_ptr<RawMemory> make_host_memory() { return std::make_unique<HostMemory>(); }

std::unique_ptr<CachingAllocator> make_caching_allocator(std::unique_ptr<RawMemory> memory, AllocatorOptions options) {
  return std::make_unique<SizeClassAllocator>(std::move(memory), options);
}

}  // namespace weft
