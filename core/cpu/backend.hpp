// The CPU backend: fills a kernel table with the best kernels of this processor.
#pragma once
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "core/kernels/table.hpp"

namespace weft::cpu {

/// The instruction sets that the vector kernels are built for.
enum class Isa : std::uint8_t { portable, v3, v4 };

constexpr std::string_view name_of(Isa isa) {
  return isa == Isa::portable ? "portable" : isa == Isa::v3 ? "x86-64-v3" : "x86-64-v4";
}

/// The best that this processor has.
Isa best_isa();

/// Whether this processor multiplies bf16 (AVX512_BF16 or AMX), so that bf16 is worth computing in.
bool has_bf16();

/// oneDNN's version. Empty: this build has none (WEFT_DNNL), and the vector kernels compute all products.
std::string dnnl_library();

/// Binds every slot. Throws Error if the hash is not this build's or the processor lacks the instruction set.
void bind(KernelTable& table, std::uint64_t abi_hash, Isa isa);

/// Handles and caches that this backend's kernels expect in ExecContext::backend.
std::unique_ptr<BackendState> make_state();

}  // namespace weft::cpu
