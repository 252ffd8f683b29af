// Errors of the CUDA runtime as Error.
#pragma once
#include <cuda_runtime.h>

#include <string_view>

#include "core/base/error.hpp"

namespace weft::cuda {

/// The runtime keeps a thread's last error until it is asked for it, and what looks there next would take it for its own.
inline void forget_last_error() noexcept { static_cast<void>(cudaGetLastError()); }

/// Throws Error that names the call and CUDA's reason, and forgets it.
inline void check(cudaError_t status, std::string_view call) {
  if (status == cudaSuccess) [[likely]]
    return;
  forget_last_error();
  fail("{}: {} ({})", call, cudaGetErrorString(status), cudaGetErrorName(status));
}

/// For calls that end or wait for something in a destructor: what has failed says so elsewhere.
inline void ignore(cudaError_t status) noexcept {
  if (status != cudaSuccess) forget_last_error();
}

}  // namespace weft::cuda
