#include "parallel/comm/operation.hpp"

#include <chrono>
#include <utility>

#include "core/base/clock.hpp"
#include "parallel/comm/comm_log.hpp"

namespace weft {

void Operation::finish(std::exception_ptr error) {
  if (log_) log_->end(*this);
  // Before waiters wake: they may count on the storage being free.
  let_go();
  if (on_finish) on_finish(error);
  {
    const std::lock_guard lock(mutex_);
    error_ = std::move(error);
    done_.store(true, std::memory_order_release);
    // Under the lock: a waiter may destroy this object as soon as it gets it.
    ended_.notify_all();
  }
}

void Operation::keep_too(Keep more) {
  keep_ = std::make_shared<const std::pair<Keep, Keep>>(std::move(keep_), std::move(more));
}

void Operation::let_go() {
  Keep kept;
  {
    const std::lock_guard lock(mutex_);
    kept = std::move(keep_);
  }
}

void Operation::become_recorded() {
  if (log_) log_->withdraw(*this);
}

std::shared_ptr<Operation> Operation::replayed() const {
  auto again = std::make_shared<Operation>(what_, nullptr);
  if (log_) log_->begin(*again, group_, wire_bytes_, BegunBy::replay);
  return again;
}

void Operation::progressed() {
  if (log_) log_->progressed(*this);
}

void Operation::expect() {
  waiters_.fetch_add(1, std::memory_order_relaxed);
  if (on_wait) on_wait();
}

void Operation::wait() { wait_for(-1); }

bool Operation::wait_for(double seconds) {
  if (hold && !done()) {
    // Once: what the computing queue is given later comes later, and a mark cannot be waited for across a recording.
    if (!std::exchange(held_, true)) {
      hold();
      let_go();
    }
    if (!done()) return true;
  }
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
