#include "core/cuda/staging.hpp"

#include <algorithm>
#include <cstring>

namespace weft::cuda {
namespace {

constexpr std::size_t alignment = 64;

}  // namespace

Staging::Staging(Allocator& pinned) : pinned_(pinned) {
  for (Buffer& buffer : buffers_) {
    buffer.data = pinned_.allocate(buffer_bytes, MemoryUse::workspace);
    buffer.copied = make_event();
  }
}

Staging::~Staging() {
  for (Buffer& buffer : buffers_) {
    // A failed device says so elsewhere.
    if (buffer.copied.get()) static_cast<void>(cudaEventSynchronize(buffer.copied.get()));
    if (buffer.data) pinned_.deallocate(buffer.data, buffer_bytes, MemoryUse::workspace);
  }
}

Staging::Buffer& Staging::next_buffer() {
  current_ = (current_ + 1) % buffer_count;
  Buffer& buffer = buffers_[current_];
  check(cudaEventSynchronize(buffer.copied.get()), "cudaEventSynchronize");
  buffer.used = 0;
  return buffer;
}

void Staging::upload(const void* host, void* device, std::size_t bytes, cudaStream_t stream) {
  for (std::size_t done = 0; done < bytes;) {
    Buffer* buffer = &buffers_[current_];
    if (buffer->used == buffer_bytes || (buffer->used > 0 && buffer->used + bytes - done > buffer_bytes))
      buffer = &next_buffer();
    const std::size_t size = std::min(bytes - done, buffer_bytes - buffer->used);
    auto* staged = static_cast<char*>(buffer->data) + buffer->used;
    std::memcpy(staged, static_cast<const char*>(host) + done, size);
    check(cudaMemcpyAsync(static_cast<char*>(device) + done, staged, size, cudaMemcpyHostToDevice, stream),
          "cudaMemcpyAsync");
    check(cudaEventRecord(buffer->copied.get(), stream), "cudaEventRecord");
    buffer->used = std::min(buffer_bytes, (buffer->used + size + alignment - 1) / alignment * alignment);
    done += size;
  }
}

void Staging::download(const void* device, void* host, std::size_t bytes, cudaStream_t stream) {
  for (std::size_t done = 0; done < bytes;) {
    Buffer& buffer = next_buffer();
    const std::size_t size = std::min(bytes - done, buffer_bytes);
    check(cudaMemcpyAsync(buffer.data, static_cast<const char*>(device) + done, size, cudaMemcpyDeviceToHost, stream),
          "cudaMemcpyAsync");
    check(cudaEventRecord(buffer.copied.get(), stream), "cudaEventRecord");
    check(cudaEventSynchronize(buffer.copied.get()), "cudaEventSynchronize");
    std::memcpy(static_cast<char*>(host) + done, buffer.data, size);
    done += size;
  }
}

}  // namespace weft::cuda
