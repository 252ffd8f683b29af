#include "core/cpu/state.hpp"

namespace weft::cpu {

Bf16Products best_bf16_products() { return prefers_dnnl() ? Bf16Products::dnnl : Bf16Products::vector; }

std::unique_ptr<BackendState> make_state() { return std::make_unique<CpuState>(best_bf16_products()); }

}  // namespace weft::cpu
