// Copies between ordinary host memory and the device through pinned memory.
#pragma once
#include <cstddef>
#include <deque>

#include "core/cuda/stream.hpp"
#include "core/kernels/exec.hpp"

namespace weft::cuda {

/// A ring of pinned buffers: what the host gives is copied into one at once, and from there by the device when its stream
/// gets there. A steady stream of small copies never waits, since a buffer's last copy has long run when its turn comes.
class Staging {
 public:
  /// `pinned` outlives it.
  explicit Staging(Allocator& pinned);
  Staging(const Staging&) = delete;
  Staging& operator=(const Staging&) = delete;

  void upload(const void* host, void* device, std::size_t bytes, cudaStream_t stream);
  /// Waits until the host has it.
  void download(const void* device, void* host, std::size_t bytes, cudaStream_t stream);

 private:
  static constexpr std::size_t buffer_bytes = std::size_t{4} << 20;
  static constexpr std::size_t buffer_count = 4;
  struct Buffer {
    explicit Buffer(Allocator& memory);
    /// Waits for its last copy.
    ~Buffer();
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    Allocator& pinned;
    const EventHandle copied = make_event();
    char* const data;
    std::size_t used = 0;
  };
  Buffer& next_buffer();

  std::deque<Buffer> buffers_;  ///< where they are made, they stay
  std::size_t current_ = 0;
};

}  // namespace weft::cuda
