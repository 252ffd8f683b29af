// What the CPU backend keeps between calls.
#pragma once
#include <array>
#include <cstdint>
#include <functional>
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

  /// The product of single steps of a recurrence; made when its shape or the number of threads is not that of the call before.
  StepProduct& one_step(const StepShape& shape, int threads,
                        const std::function<std::unique_ptr<StepProduct>()>& make) {
    OneStep& kept = one_step_[shape.forward() ? 0 : 1];
    if (!kept.product || kept.product->shape() != shape || kept.threads != threads) kept = {threads, make()};
    return *kept.product;
  }

 private:
  struct OneStep {
    int threads = 0;
    std::unique_ptr<StepProduct> product;
  };
  std::unique_ptr<DnnlProducts> dnnl_;
  std::array<OneStep, 2> one_step_;
};

}  // namespace weft::cpu
