// The state that a started collective shares between the caller's Work and the transport that runs it.
#pragma once
#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <mutex>

#include "parallel/comm/collective.hpp"

namespace weft {

class CommLog;
class GroupRecord;

/// Keeps storage alive until the collective has ended.
using Keep = std::shared_ptr<const void>;

class Operation {
 public:
  Operation(const Collective& what, Keep keep) : what_(what), keep_(std::move(keep)) {}
  /// Stands in for `outer` in a transport below the one that was given `outer`: the log takes its progress for outer's.
  Operation(const Operation& outer, const Collective& what, Keep keep)
      : what_(what), keep_(std::move(keep)), record_(outer.record_) {}
  Operation(const Operation&) = delete;
  Operation& operator=(const Operation&) = delete;

  const Collective& what() const { return what_; }
  /// Empty once it has ended, or its storage may be used again.
  const Keep& keep() const { return keep_; }
  /// Keeps `more` as long. By the transport, before anyone else sees the operation.
  void keep_too(Keep more);
  /// Called once, by the transport, from any thread; a non-null error is what wait() throws.
  void finish(std::exception_ptr error = nullptr);
  bool done() const { return done_.load(std::memory_order_acquire); }
  /// Blocks the calling thread until the end; rethrows the collective's error.
  void wait();
  /// As wait(), for at most `seconds`; false if it had not ended by then.
  bool wait_for(double seconds);
  /// For a transport: it moved, or has a good reason to stand still.
  void progressed();
  /// From now on awaited(), for an operation that another one stands in for.
  void expect();
  /// A thread is blocked in wait().
  bool awaited() const { return waiters_.load(std::memory_order_relaxed) > 0; }

  /// Set before the transport starts it: called from finish() on the finishing thread, when the storage was let
  /// go and before waiters wake.
  std::function<void(const std::exception_ptr&)> on_finish;
  /// Set before the transport starts it: called when a thread begins to block, so that polling can quicken.
  std::function<void()> on_wait;
  /// Set by a transport whose collectives run in a queue of the device: has the queue that computes wait for the end. Then
  /// wait() does this instead of blocking, and the storage is let go: what uses it next comes later in that queue.
  std::function<void()> hold;

  /// For a transport: the operation became part of a recorded step. Nothing has moved, and it never finishes by itself.
  void become_recorded();
  /// A replay began one that become_recorded(); it ends as others do.
  std::shared_ptr<Operation> replayed() const;

 private:
  friend class CommLog;
  void let_go();
  Collective what_;
  Keep keep_;
  std::atomic<bool> done_ = false;
  std::atomic<int> waiters_ = 0;
  std::mutex mutex_;
  std::condition_variable ended_;
  std::exception_ptr error_;
  CommLog* log_ = nullptr;
  std::shared_ptr<GroupRecord> group_;
  std::uint64_t record_ = 0;
  std::uint64_t wire_bytes_ = 0;
  bool held_ = false;  ///< by the waiting thread
};

/// A handle on a started collective. Empty handles are complete. Dropping one neither waits for nor stops the
/// collective, which then needs its Keep.
class Work {
 public:
  Work() = default;
  explicit Work(std::shared_ptr<Operation> operation) : operation_(std::move(operation)) {}
  Work(Work&&) = default;
  Work& operator=(Work&&) = default;
  Work(const Work&) = delete;
  Work& operator=(const Work&) = delete;

  /// What comes next finds the result: the host blocks until it is there, or, for memory of a device that has links of its
  /// own, the device's computing queue does. May be called again. Throws the Error that the collective ended with.
  void wait() {
    if (operation_) operation_->wait();
  }
  /// As wait(), for at most `seconds`; false if the collective goes on.
  bool wait_for(double seconds) { return !operation_ || operation_->wait_for(seconds); }
  bool done() const { return !operation_ || operation_->done(); }

 private:
  std::shared_ptr<Operation> operation_;
};

}  // namespace weft
