// Errors of the CUDA runtime as Error.
#pragma once
#include <cuda_runtime.h>

#include "core/base/error.hpp"

namespace weft::cuda {

/// Throws Error that names the call and CUDA's reason.
inline void check(cudaError_t status, const char* call) {
  if (status != cudaSuccess) [[unlikely]]
    fail("{}: {} ({})", call, cudaGetErrorString(status), cudaGetErrorName(status));
}

}  // namespace weft::cuda
