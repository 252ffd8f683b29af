// What the CPU backend keeps between calls.
#pragma once
#include <cstdint>
#include <memory>

#include "core/cpu/backend.hpp"

namespace weft::cpu {

class DnnlProducts;

/// Who multiplies bf16 matrices. `vector` widens them to f32 while packing; `dnnl` keeps them for the processor's bf16
/// units, with weights packed once a version.
enum class Bf16Products : std::uint8_t { vector, dnnl };

/// The faster on this processor: oneDNN where it has tiles for bf16 (AMX), or a bf16 dot product that is faster than its
/// f32 multiply-add (AMD, where Intel's have at most the same rate).
Bf16Products best_bf16_products();

class CpuState final : public BackendState {
 public:
  explicit CpuState(Bf16Products bf16);
  ~CpuState() override;
  /// Null for Bf16Products::vector.
  DnnlProducts* dnnl() { return dnnl_.get(); }

 private:
  std::unique_ptr<DnnlProducts> dnnl_;
};

}  // namespace weft::cpu
