#include "core/cuda/error.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/state.hpp"

namespace weft::cuda {

std::unique_ptr<BackendState> make_state(std::span<const std::filesystem::path> folders) {
  int device = 0, major = 0, minor = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
  CublasLtOptions products;
  products.folders.insert(products.folders.end(), folders.begin(), folders.end());
  return std::make_unique<CudaState>(std::move(products),
                                     [&] { return make_cudnn_attention(10 * major + minor, folders); });
}

}  // namespace weft::cuda
