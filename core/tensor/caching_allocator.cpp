#include "core/tensor/caching_allocator.hpp"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
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

class CachingAllocator final : public Allocator {
 public:
  CachingAllocator(std::unique_ptr<RawMemory> memory, AllocatorOptions options)
      : memory_(std::move(memory)), options_(options) {}

  ~CachingAllocator() override { release_cached(); }

  DeviceId device() const override { return memory_->device(); }

  void* allocate(std::size_t bytes, MemoryUse use) override {
    const std::size_t size = size_class(bytes);
    const std::lock_guard lock(mutex_);
    if (options_.limit_bytes && stats_.total_live + size > options_.limit_bytes)
      fail("out of memory: {} bytes for {} beside {} in use pass the limit of {}", size, name_of(use), stats_.total_live,
           options_.limit_bytes);
    void* data = take_cached(size);
    if (!data) {
      if (options_.limit_bytes && stats_.total_live + cached_ + size > options_.limit_bytes) release_cached();
      data = memory_->allocate(size);
    }
    if (!data) {
      release_cached();
      data = memory_->allocate(size);
    }
    if (!data) fail("out of memory: {} bytes for {} beside {} in use", size, name_of(use), stats_.total_live);
    count(size, use);
    return data;
  }

  void deallocate(void* data, std::size_t bytes, MemoryUse use) noexcept override {
    const std::size_t size = size_class(bytes);
    const std::lock_guard lock(mutex_);
    stats_.live[static_cast<std::size_t>(use)] -= size;
    stats_.total_live -= size;
    cached_ += size;
    free_[size].push_back(data);
  }

  MemoryStats stats() const override {
    const std::lock_guard lock(mutex_);
    return stats_;
  }

 private:
  void* take_cached(std::size_t size) {
    const auto found = free_.find(size);
    if (found == free_.end() || found->second.empty()) return nullptr;
    void* data = found->second.back();
    found->second.pop_back();
    cached_ -= size;
    return data;
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
  }

  std::unique_ptr<RawMemory> memory_;
  AllocatorOptions options_;
  mutable std::mutex mutex_;
  std::unordered_map<std::size_t, std::vector<void*>> free_;
  std::size_t cached_ = 0;  ///< bytes of the blocks in free_
  MemoryStats stats_;
};

}  // namespace

std::unique_ptr<RawMemory> make_host_memory() { return std::make_unique<HostMemory>(); }

std::unique_ptr<Allocator> make_caching_allocator(std::unique_ptr<RawMemory> memory, AllocatorOptions options) {
  return std::make_unique<CachingAllocator>(std::move(memory), options);
}

}  // namespace weft
