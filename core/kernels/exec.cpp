#include "core/kernels/exec.hpp"

#include <algorithm>

namespace weft {

ExecContext::~ExecContext() { drop_scratch(); }

void ExecContext::drop_scratch() {
  if (scratch_) memory_.deallocate(scratch_, scratch_bytes_, MemoryUse::workspace);
  scratch_ = nullptr;
  scratch_bytes_ = 0;
}

void* ExecContext::scratch(std::size_t bytes) {
  if (bytes > scratch_bytes_) {
    drop_scratch();
    scratch_ = memory_.allocate(bytes, MemoryUse::workspace);
    scratch_bytes_ = bytes;
  }
  return scratch_;
}

}  // namespace weft
