// Block where kernels run on fibers: the same face as cuda_block.hpp.
#pragma once
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#define WEFT_DEVICE inline
#define WEFT_HOST_DEVICE inline
#define WEFT_UNROLL

namespace weft::cuda {

namespace fibers {

class BlockState;

/// Waits until all threads of the block, or of the warp, have come here.
void sync_block(BlockState& state);
void sync_warp(BlockState& state, int thread);
/// 8 bytes from each lane of a warp: writes this lane's, waits for all, returns lane `from`'s (this lane's own if there is
/// no such lane, as CUDA's shuffles do).
std::uint64_t exchange(BlockState& state, int thread, std::uint64_t mine, int from);
void* shared_memory(BlockState& state);

}  // namespace fibers

class Block {
 public:
  Block(fibers::BlockState& state, int thread, int threads, std::int64_t index, std::int64_t blocks)
      : state_(state), thread_(thread), threads_(threads), index_(index), blocks_(blocks) {}

  int thread() const { return thread_; }
  int threads() const { return threads_; }
  std::int64_t index() const { return index_; }
  std::int64_t blocks() const { return blocks_; }
  int lane() const { return thread_ % 32; }
  int warp() const { return thread_ / 32; }
  int warps() const { return threads_ / 32; }

  void sync() const { fibers::sync_block(state_); }
  void sync_warp() const { fibers::sync_warp(state_, thread_); }

  template <class T>
  T shuffle_xor(T value, int mask) const {
    return shuffle_from(value, lane() ^ mask);
  }
  template <class T>
  T shuffle_down(T value, int distance) const {
    return shuffle_from(value, lane() + distance);
  }
  template <class T>
  T shuffle(T value, int from_lane) const {
    return shuffle_from(value, from_lane);
  }

  template <class T>
  T* shared() const {
    return static_cast<T*>(fibers::shared_memory(state_));
  }

  template <class T>
  T atomic_add(T* to, T value) const {
    const T before = *to;
    *to = before + value;
    return before;
  }
  void fence() const {}
  void tell_host(std::int64_t* at, std::int64_t value) const { __atomic_store_n(at, value, __ATOMIC_RELEASE); }

 private:
  template <class T>
  T shuffle_from(T value, int from) const {
    static_assert(std::is_trivially_copyable_v<T> && sizeof(T) <= 8);
    std::uint64_t word = 0;
    std::memcpy(&word, &value, sizeof value);
    word = fibers::exchange(state_, thread_, word, from);
    std::memcpy(&value, &word, sizeof value);
    return value;
  }

  fibers::BlockState& state_;
  int thread_, threads_;
  std::int64_t index_, blocks_;
};

}  // namespace weft::cuda
