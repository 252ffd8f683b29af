// bf16 matrix products by oneDNN, for processors with bf16 units. dnnl_absent.cpp stands in where the build has no oneDNN.
#pragma once
#include <cstddef>
#include <memory>
#include <string>

#include "core/cpu/linear_product.hpp"
#include "core/cpu/step_product.hpp"
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
  virtual ~DnnlProducts() = default;

  /// Whether `run` takes it; what it does not take (gaps between rows of a weight gradient) the vector kernels do.
  virtual bool takes(const Product& product) const = 0;
  /// Bytes of 64-byte aligned scratch that `run` wants.
  virtual std::size_t scratch(const Product& product, int threads) = 0;
  virtual void run(ExecContext& exec, const Product& product, void* scratch) = 0;
  /// Dense bf16 rows from f32 rows `stride` apart.
  virtual void narrow(const float* from, std::int64_t stride, std::int64_t rows, std::int64_t cols, void* to,
                      int threads) = 0;
  /// The products of a recurrence's steps, in the activations' dtype.
  virtual std::unique_ptr<StepProduct> steps(const StepShape& shape, std::int64_t steps, int threads) const = 0;
};

/// Primitives are made once a shape; the weight is kept in the blocked layout that oneDNN asks for, one copy for each
/// direction, made again when its version moves on. Throws Error where this build has no oneDNN.
std::unique_ptr<DnnlProducts> make_dnnl_products();

/// Whether they are faster than the vector kernels: where the processor has tiles for bf16 (AMX), or a bf16 dot product that is
/// faster than its f32 multiply-add (AMD, where Intel's have at most the same rate).
bool prefers_dnnl();

}  // namespace weft::cpu
