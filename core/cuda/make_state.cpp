#include "core/cuda/error.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/cuda/state.hpp"

namespace weft::cuda {

std::unique_ptr<BackendState> make_state() {
  int device = 0, major = 0, minor = 0;
  check(cudaGetDevice(&device), "cudaGetDevice");
  check(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device), "cudaDeviceGetAttribute");
  check(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device), "cudaDeviceGetAttribute");
  return std::make_unique<CudaState>(CublasLtOptions{}, [&] { return make_cudnn_attention(10 * major + minor); });
}

}  // namespace weft::cuda
