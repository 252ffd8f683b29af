// Copies from host memory to host memory.
#include <cstring>

#include "core/cpu/vector.hpp"
#include "core/kernels/check.hpp"

namespace weft::cpu {
namespace {

void copy_bytes(ExecContext&, View from, MutView to) {
  check_transfer(from, to);
  if (from.bytes() > 0) std::memcpy(to.data, from.data, from.bytes());
}

}  // namespace

void bind_transfer(KernelTable& table) {
  table.transfer.upload.bind(copy_bytes);
  table.transfer.upload_later.bind(copy_bytes);
  table.transfer.download.bind(copy_bytes);
  table.transfer.download_later.bind(copy_bytes);
  table.transfer.copy.bind(copy_bytes);
}

}  // namespace weft::cpu
