#include "core/kernels/table.hpp"

#include "core/kernels/abi_hash.hpp"

namespace weft {

std::uint64_t kernel_abi_hash() { return WEFT_KERNEL_ABI_HASH; }

}  // namespace weft
