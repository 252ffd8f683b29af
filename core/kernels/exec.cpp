#include "core/kernels/exec.hpp"

#include <algorithm>

namespace weft {

ExecContext::~ExecContext() {
  if (scratch_) memory_.deallocate(scratch_, scratch_bytes_, MemoryUse::workspace);
}

void* ExecContext::scratch(std::size_t bytes) {
  if (bytes > scratch_bytes_) {
    if (scratch_) memory_.deallocate(scratch_, scratch_bytes_, MemoryUse::workspace);
    scratch_ = nullptr;
    scratch_bytes_ = 0;
    scratch_ = memory_.allocate(bytes, MemoryUse::workspace);
    scratch_bytes_ = bytes;
  }
  return scratch_;
}

}  // namespace weft
