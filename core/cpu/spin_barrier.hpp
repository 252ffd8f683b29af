// A barrier for threads that meet every few microseconds.
#pragma once
#include <atomic>
#include <thread>

namespace weft::cpu {

/// Waits by spinning, for a while, and then by giving the core away, so that threads that share cores still go on.
class SpinBarrier {
 public:
  explicit SpinBarrier(int threads) : threads_(threads) {}

  /// Returns once all threads have come; what each wrote before is then seen by all.
  void wait() {
    if (threads_ <= 1) return;
    const unsigned round = round_.load(std::memory_order_relaxed);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == threads_) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      return;
    }
    constexpr int spins = 4000;
    for (int i = 0; round_.load(std::memory_order_acquire) == round; ++i) {
      if (i < spins)
        __builtin_ia32_pause();
      else
        std::this_thread::yield();
    }
  }

 private:
  const int threads_;
  alignas(64) std::atomic<int> arrived_{0};
  alignas(64) std::atomic<unsigned> round_{0};
};

}  // namespace weft::cpu
