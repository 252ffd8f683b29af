#include "core/cuda/staging.hpp"

#include <algorithm>
#include <cstring>

namespace weft::cuda {
namespace {

constexpr std::size_t alignment = 64;

}  // namespace

Staging::Buffer::Buffer(Allocator& memory)
    : pinned(memory), data(static_cast<char*>(memory.allocate(buffer_bytes, MemoryUse::workspace))) {}

Staging::Buffer::~Buffer() {
  ignore(cudaEventSynchronize(copied.get()));
  pinned.deallocate(data, buffer_bytes, MemoryUse::workspace);
}

Staging::Staging(Allocator& pinned) {
  for (std::size_t i = 0; i < buffer_count; ++i) buffers_.emplace_back(pinned);
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
    char* staged = buffer->data + buffer->used;
    std::memcpy(staged, static_cast<const char*>(host) + done, size);
    buffer->used = std::min(buffer_bytes, (buffer->used + size + alignment - 1) / alignment * alignment);
    check(cudaMemcpyAsync(static_cast<char*>(device) + done, staged, size, cudaMemcpyHostToDevice, stream),
          "cudaMemcpyAsync");
    check(cudaEventRecord(buffer->copied.get(), stream), "cudaEventRecord");
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
