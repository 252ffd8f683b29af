// bf16 matrix products by oneDNN, for processors with bf16 units. Primitives are made once a shape; the weight is kept
// in the blocked layout that oneDNN asks for, one copy for each direction, made again when its version moves on.
#pragma once
#include <cstddef>
#include <memory>

#include "core/cpu/linear_product.hpp"
#include "core/kernels/linear.hpp"

namespace weft::cpu {

/// One matrix product of a linear layer.
struct Product {
  ProductShape shape;
  LeftOperand a;
  RightOperand b;
  ProductOutput output;
  const WeightRef* weight = nullptr;  ///< B is this weight's master; null: B is not a weight
};

class DnnlProducts {
 public:
  DnnlProducts();
  ~DnnlProducts();

  /// Whether `run` takes it; what it does not take (gaps between rows of a weight gradient) the vector kernels do.
  static bool takes(const Product& product);
  /// Bytes of 64-byte aligned scratch that `run` wants.
  std::size_t scratch(const Product& product, int threads);
  void run(ExecContext& exec, const Product& product, void* scratch);
  /// Dense bf16 rows from f32 rows `stride` apart.
  void narrow(const float* from, std::int64_t stride, std::int64_t rows, std::int64_t cols, void* to, int threads);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft::cpu
