// Block on the GPU. One-dimensional grids and blocks.
#pragma once
#include <cuda_runtime.h>

#include <cstdint>

#define WEFT_DEVICE __device__ __forceinline__
#define WEFT_HOST_DEVICE __host__ __device__ __forceinline__
#define WEFT_UNROLL _Pragma("unroll")

namespace weft::cuda {

struct Block {
  WEFT_DEVICE int thread() const { return static_cast<int>(threadIdx.x); }
  WEFT_DEVICE int threads() const { return static_cast<int>(blockDim.x); }
  WEFT_DEVICE std::int64_t index() const { return blockIdx.x; }
  WEFT_DEVICE std::int64_t blocks() const { return gridDim.x; }
  WEFT_DEVICE int lane() const { return static_cast<int>(threadIdx.x & 31); }
  WEFT_DEVICE int warp() const { return static_cast<int>(threadIdx.x >> 5); }
  WEFT_DEVICE int warps() const { return static_cast<int>(blockDim.x >> 5); }

  WEFT_DEVICE void sync() const { __syncthreads(); }
  WEFT_DEVICE void sync_warp() const { __syncwarp(); }

  /// The value of lane (lane() ^ mask), of lane() + distance, of `lane`: all 32 lanes take part.
  template <class T>
  WEFT_DEVICE T shuffle_xor(T value, int mask) const {
    return __shfl_xor_sync(0xffffffffu, value, mask);
  }
  template <class T>
  WEFT_DEVICE T shuffle_down(T value, int distance) const {
    return __shfl_down_sync(0xffffffffu, value, distance);
  }
  template <class T>
  WEFT_DEVICE T shuffle(T value, int from_lane) const {
    return __shfl_sync(0xffffffffu, value, from_lane);
  }

  /// The block's shared memory, as large as the launch asked for, aligned to 16 bytes; not initialised.
  template <class T>
  WEFT_DEVICE T* shared() const {
    extern __shared__ __align__(16) unsigned char weft_shared[];
    return reinterpret_cast<T*>(weft_shared);
  }

  /// Returns what was there before. In an order of their own: for integers only where results must repeat.
  template <class T>
  WEFT_DEVICE T atomic_add(T* to, T value) const {
    return atomicAdd(to, value);
  }
  /// Orders this thread's writes before its later ones for all threads of the device.
  WEFT_DEVICE void fence() const { __threadfence(); }
  /// Writes to pinned memory of the host, which sees it after all that this thread wrote before.
  WEFT_DEVICE void tell_host(std::int64_t* at, std::int64_t value) const {
    __threadfence_system();
    *static_cast<volatile std::int64_t*>(at) = value;
  }
};

}  // namespace weft::cuda
