// What the CPU backend keeps between calls.
#pragma once
#include <cstdint>
#include <memory>

#include "core/cpu/backend.hpp"
#include "core/cpu/dnnl_products.hpp"

namespace weft::cpu {

/// Who multiplies bf16 matrices. `vector` widens them to f32 while packing; `dnnl` keeps them for the processor's bf16
/// units, with weights packed once a version.
enum class Bf16Products : std::uint8_t { vector, dnnl };

/// The faster on this processor.
Bf16Products best_bf16_products();

class CpuState final : public BackendState {
 public:
  explicit CpuState(Bf16Products bf16) {
    if (bf16 == Bf16Products::dnnl) dnnl_ = make_dnnl_products();
  }
  /// Null for Bf16Products::vector.
  DnnlProducts* dnnl() { return dnnl_.get(); }

 private:
  std::unique_ptr<DnnlProducts> dnnl_;
};

}  // namespace weft::cpu
