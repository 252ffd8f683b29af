#include "core/cpu/state.hpp"

#include <dnnl.hpp>

#include "core/cpu/dnnl_products.hpp"

namespace weft::cpu {

Bf16Products best_bf16_products() {
  const auto isa = static_cast<unsigned>(dnnl::get_effective_cpu_isa());
  const auto has = [isa](dnnl::cpu_isa wanted) {
    return (isa & static_cast<unsigned>(wanted)) == static_cast<unsigned>(wanted);
  };
  const bool tiles = has(dnnl::cpu_isa::avx512_core_amx);
  const bool fast_dot = has(dnnl::cpu_isa::avx512_core_bf16) && __builtin_cpu_is("amd");
  return tiles || fast_dot ? Bf16Products::dnnl : Bf16Products::vector;
}

CpuState::CpuState(Bf16Products bf16) {
  if (bf16 == Bf16Products::dnnl) dnnl_ = std::make_unique<DnnlProducts>();
}

CpuState::~CpuState() = default;

std::unique_ptr<BackendState> make_state() { return std::make_unique<CpuState>(best_bf16_products()); }

}  // namespace weft::cpu
