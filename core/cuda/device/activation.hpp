// Activations and their slopes in f32.
#pragma once
#include <cmath>

#include "core/cuda/device/block.hpp"

namespace weft::cuda {

/// 1 / (1 + e^−x). On the GPU the fast exponential and division, whose relative error is about 1e-7·(1 + |x|): the
/// accurate ones would make these kernels wait for arithmetic rather than for memory.
WEFT_DEVICE float sigmoid(float x) {
#if defined(__CUDA_ARCH__)
  return __fdividef(1.0f, 1.0f + __expf(-x));
#else
  return 1.0f / (1.0f + std::exp(-x));
#endif
}

/// The name is not tanh's, so that neither hides the other.
WEFT_DEVICE float tanh_of(float x) {
#if defined(__CUDA_ARCH__)
  return tanhf(x);
#else
  return std::tanh(x);
#endif
}

// tanh-form GELU (Hendrycks & Gimpel 2016): x/2·(1 + tanh u) = x·sigmoid(2u) with u = √(2/π)·(x + 0.044715·x³).
inline constexpr float gelu_scale = 1.59576912160573071f;  ///< 2·√(2/π)
inline constexpr float gelu_cube = 0.044715f;

WEFT_DEVICE float gelu_of(float x) { return x * sigmoid(x * gelu_scale * (1.0f + gelu_cube * x * x)); }

/// The derivative of gelu_of.
WEFT_DEVICE float gelu_slope(float x) {
  const float square = x * x;
  const float s = sigmoid(x * gelu_scale * (1.0f + gelu_cube * square));
  return s + x * s * (1.0f - s) * gelu_scale * (1.0f + 3.0f * gelu_cube * square);
}

}  // namespace weft::cuda
