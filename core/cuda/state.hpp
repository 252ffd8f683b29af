// What the CUDA kernels keep in ExecContext::backend: the vendors' libraries, and what is cached for them.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/cuda/cublaslt.hpp"
#include "core/cuda/fused_attention.hpp"

namespace weft::cuda {

/// For the device that is current when it is made.
class CudaState final : public BackendState {
 public:
  using MakeAttention = std::function<std::unique_ptr<FusedAttention>()>;

  /// Throws Error if cuBLASLt is missing or cannot use the device. `attention` is asked after that; where it throws Error,
  /// Weft's own kernels compute all attention.
  CudaState(CublasLtOptions products, const MakeAttention& attention);

  CublasLtState& products() { return products_; }
  /// Null if there is none.
  FusedAttention* attention() { return attention_.get(); }

  /// A library that is used, or could be.
  struct LibraryUse {
    std::string purpose;
    bool used;
    std::string details;  ///< name, version and file; or why it is not used, which may take several lines
  };
  std::vector<LibraryUse> libraries() const;

 private:
  CublasLtState products_;
  std::unique_ptr<FusedAttention> attention_;
  std::string why_no_attention_;
};

/// Throws Error if the context has none.
CudaState& state_of(ExecContext& exec);

}  // namespace weft::cuda
