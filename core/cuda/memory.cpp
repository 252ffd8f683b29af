#include "core/cuda/memory.hpp"

#include "core/cuda/error.hpp"

namespace weft::cuda {
namespace {

/// `data`, or null when there is no more.
void* taken(void* data, cudaError_t status, const char* call) {
  if (status == cudaErrorMemoryAllocation) {
    forget_last_error();
    return nullptr;
  }
  check(status, call);
  return data;
}

class DeviceMemory final : public RawMemory {
 public:
  explicit DeviceMemory(int index) : index_(index) {}
  DeviceId device() const override { return {DeviceKind::cuda, static_cast<std::int8_t>(index_)}; }
  void* allocate(std::size_t bytes) override {
    void* data = nullptr;
    const cudaError_t status = cudaMalloc(&data, bytes);
    return taken(data, status, "cudaMalloc");
  }
  void deallocate(void* data, std::size_t) noexcept override { ignore(cudaFree(data)); }
  std::string left() const override {
    std::size_t free = 0, total = 0;
    const cudaError_t status = cudaMemGetInfo(&free, &total);
    ignore(status);
    return status == cudaSuccess ? fmt::format("the GPU has {} of {} bytes free", free, total) : std::string();
  }

 private:
  int index_;
};

class PinnedMemory final : public RawMemory {
 public:
  DeviceId device() const override { return {}; }
  void* allocate(std::size_t bytes) override {
    void* data = nullptr;
    const cudaError_t status = cudaHostAlloc(&data, bytes, cudaHostAllocDefault);
    return taken(data, status, "cudaHostAlloc");
  }
  void deallocate(void* data, std::size_t) noexcept override { ignore(cudaFreeHost(data)); }
  std::string left() const override { return "the host pins no more memory"; }
};

}  // namespace

std::unique_ptr<RawMemory> make_device_memory(int index) { return std::make_unique<DeviceMemory>(index); }
std::unique_ptr<RawMemory> make_pinned_memory() { return std::make_unique<PinnedMemory>(); }

}  // namespace weft::cuda
