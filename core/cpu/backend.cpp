#include "core/cpu/backend.hpp"

#include "core/cpu/linear.hpp"
#include "core/cpu/vector.hpp"

namespace weft::cpu {
namespace {

bool supported(Isa isa) {
  switch (isa) {
    case Isa::portable: return true;
    case Isa::v3: return __builtin_cpu_supports("x86-64-v3") != 0;
    case Isa::v4: return __builtin_cpu_supports("x86-64-v4") != 0;
  }
  return false;
}

}  // namespace

Isa best_isa() { return supported(Isa::v4) ? Isa::v4 : supported(Isa::v3) ? Isa::v3 : Isa::portable; }

bool has_bf16() { return __builtin_cpu_supports("avx512bf16") != 0; }

void bind(KernelTable& table, std::uint64_t abi_hash, Isa isa) {
  WEFT_CHECK(abi_hash == kernel_abi_hash(), "the CPU backend belongs to another build");
  WEFT_CHECK(supported(isa), "this processor has no {}", name_of(isa));
  bind_linear(table, isa);
  bind_norm(table, isa);
  bind_dropout(table, isa);
  bind_elementwise(table, isa);
  bind_channels(table, isa);
  bind_embedding(table, isa);
  bind_attention(table, isa);
  bind_optim(table, isa);
  bind_scan(table, isa);
  bind_recurrent(table, isa);
  bind_transfer(table);
}

}  // namespace weft::cpu
