// Parts of a kernel's scratch.
#pragma once
#include <cstddef>

namespace weft::cuda {

/// Lays out the parts of one request: a second request of the same kernel would take the first one's memory.
class ScratchParts {
 public:
  /// The offset of a new part, aligned to 256 bytes.
  std::size_t add(std::size_t bytes) {
    const std::size_t offset = bytes_;
    bytes_ += (bytes + 255) / 256 * 256;
    return offset;
  }
  std::size_t bytes() const { return bytes_; }

 private:
  std::size_t bytes_ = 0;
};

}  // namespace weft::cuda
