// Numbers on the device: f32 is what kernels compute in, memory holds f32 or bf16.
#pragma once
#include <cmath>
#include <cstdint>

#include "core/base/dtype.hpp"
#include "core/cuda/device/block.hpp"

#if defined(__CUDACC__)
#include <cuda_bf16.h>
#endif

namespace weft::cuda {

WEFT_HOST_DEVICE float to_float(float value) { return value; }

#if defined(__CUDA_ARCH__)

WEFT_DEVICE float to_float(bf16 value) { return __uint_as_float(static_cast<std::uint32_t>(value.bits) << 16); }
template <class T>
WEFT_DEVICE T from_float(float value) {
  if constexpr (sizeof(T) == sizeof(float)) {
    return value;
  } else {
    T result;
    result.bits = __bfloat16_as_ushort(__float2bfloat16_rn(value));
    return result;
  }
}
WEFT_DEVICE float rsqrt(float x) { return rsqrtf(x); }

#else

WEFT_HOST_DEVICE float to_float(bf16 value) { return static_cast<float>(value); }
template <class T>
WEFT_HOST_DEVICE T from_float(float value) {
  return T(value);
}
WEFT_HOST_DEVICE float rsqrt(float x) { return 1.0f / std::sqrt(x); }

#endif

/// N neighbours in memory, loaded and stored as one access of up to 16 bytes; the address is a multiple of its size.
template <class T, int N>
struct alignas(sizeof(T) * N < 16 ? sizeof(T) * N : 16) Pack {
  T at[N];
};

/// As many T as 16 bytes hold.
template <class T>
inline constexpr int pack_width = 16 / static_cast<int>(sizeof(T));

template <int N, class T>
WEFT_DEVICE Pack<T, N> load_pack(const T* p) {
  return *reinterpret_cast<const Pack<T, N>*>(p);
}
template <int N, class T>
WEFT_DEVICE void store_pack(T* p, const Pack<T, N>& pack) {
#if defined(__CUDA_ARCH__)
  // As one number of 16 bytes: nvcc does not always see that elements stored one after another are neighbours.
  if constexpr (sizeof(Pack<T, N>) % sizeof(uint4) == 0) {
    for (std::size_t i = 0; i < sizeof(Pack<T, N>) / sizeof(uint4); ++i) {
      uint4 w;
      memcpy(&w, &pack.at[i * sizeof(uint4) / sizeof(T)], sizeof w);
      const auto low = static_cast<std::uint64_t>(w.y) << 32 | w.x, high = static_cast<std::uint64_t>(w.w) << 32 | w.z;
      reinterpret_cast<unsigned __int128*>(p)[i] = static_cast<unsigned __int128>(high) << 64 | low;
    }
    return;
  }
#endif
  *reinterpret_cast<Pack<T, N>*>(p) = pack;
}

/// Host: whether rows of `cols` elements at `stride` from `data` on can go in packs of N.
template <int N, class T>
bool can_pack(const T* data, std::int64_t cols, std::int64_t stride) {
  return reinterpret_cast<std::uintptr_t>(data) % sizeof(Pack<T, N>) == 0 && cols % N == 0 && stride % N == 0;
}

}  // namespace weft::cuda
