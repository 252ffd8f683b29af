// Picks who computes a product: oneDNN if the backend's state holds it and it takes the product, else the vector kernels.
#pragma once
#include "core/cpu/dnnl_products.hpp"

namespace weft::cpu {

class Multiplier {
 public:
  Multiplier(const MatrixKernels& kernels, ExecContext& exec);
  /// oneDNN's products of this context, or null.
  DnnlProducts* dnnl() const { return dnnl_; }
  /// Bytes of 64-byte aligned scratch that `run` wants.
  std::size_t scratch(const Product& job) const;
  void run(const Product& job, void* scratch) const;

 private:
  const MatrixKernels& kernels_;
  ExecContext& exec_;
  DnnlProducts* dnnl_;
};

}  // namespace weft::cpu
