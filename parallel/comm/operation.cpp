#include "parallel/comm/operation.hpp"

#include <chrono>

#include "core/base/clock.hpp"
#include "parallel/comm/comm_log.hpp"

namespace weft {

void Operation::finish(std::exception_ptr error) {
  if (log_) log_->end(*this);
  // Before waiters wake: they may count on the storage being free.
  keep_.reset();
  if (on_finish) on_finish(error);
  {
    const std::lock_guard lock(mutex_);
    error_ = std::move(error);
    done_.store(true, std::memory_order_release);
    // Under the lock: a waiter may destroy this object as soon as it gets it.
    ended_.notify_all();
  }
}

void Operation::expect() {
  waiters_.fetch_add(1, std::memory_order_relaxed);
  if (on_wait) on_wait();
}

void Operation::wait() { wait_for(-1); }

bool Operation::wait_for(double seconds) {
  if (!done()) {
    const double begun = seconds_now();
    waiters_.fetch_add(1, std::memory_order_relaxed);
    if (log_) log_->waiting(*this);
    if (on_wait) on_wait();
    std::unique_lock lock(mutex_);
    if (seconds < 0)
      ended_.wait(lock, [this] { return done(); });
    else
      ended_.wait_for(lock, std::chrono::duration<double>(seconds), [this] { return done(); });
    lock.unlock();
    waiters_.fetch_sub(1, std::memory_order_relaxed);
    if (log_) log_->waited(*this, seconds_now() - begun);
    if (!done()) return false;
  }
  if (error_) std::rethrow_exception(error_);
  return true;
}

}  // namespace weft
