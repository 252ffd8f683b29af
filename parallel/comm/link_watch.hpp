// Sees collectives on a device's links begin and end, which no thread of the host waits for.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "core/base/memory.hpp"
#include "core/kernels/device.hpp"
#include "parallel/comm/operation.hpp"

namespace weft {

/// Events that are used again and again. Thread-safe; those that are taken come back when they are dropped.
class EventPool : public std::enable_shared_from_this<EventPool> {
 public:
  /// `device` outlives the pool and its events.
  explicit EventPool(Device& device) : device_(device) {}
  std::shared_ptr<Event> take();

 private:
  Device& device_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Event>> free_;
};

/// The collectives of one group that one recording holds, in the order of the group's queue, and how many of them replays
/// have begun and ended.
class LinkRecording {
 public:
  LinkRecording(Allocator& host_memory, std::uint64_t number);
  ~LinkRecording();
  LinkRecording(const LinkRecording&) = delete;
  LinkRecording& operator=(const LinkRecording&) = delete;

  std::uint64_t number() const { return number_; }
  /// What the queue counts, before and after each.
  MutView begun() const { return counter(0); }
  MutView ended() const { return counter(1); }

  /// By the thread that records.
  void add(std::shared_ptr<Operation> operation);
  /// Begins and finishes what replays did since the last call.
  void follow();

 private:
  MutView counter(std::int64_t index) const;
  std::int64_t read(std::int64_t index) const;
  void begin_next();

  Allocator& host_memory_;
  std::uint64_t number_;
  std::int64_t* counters_;
  std::mutex mutex_;
  std::vector<std::shared_ptr<Operation>> operations_;
  std::int64_t begun_ = 0;  ///< followed
  std::int64_t ended_ = 0;
  std::deque<std::shared_ptr<Operation>> running_;
};

/// What groups of one device share: a thread that finishes their operations and looks for errors of their links.
class LinkWatch {
 public:
  using OnFailure = std::function<void(const std::string& report)>;
  /// `on_failure` is called once, from the watch's thread, when a link has failed, and should end the process; when it
  /// returns, what is in flight ends with an Error. `device` outlives the watch.
  LinkWatch(Device& device, OnFailure on_failure);
  ~LinkWatch();
  LinkWatch(const LinkWatch&) = delete;
  LinkWatch& operator=(const LinkWatch&) = delete;

  Device& device() { return device_; }
  std::shared_ptr<Event> take_event() { return events_->take(); }

  /// Finishes `operation` once `ended` has passed. Operations of one group come in their queue's order.
  void follow(DeviceGroup& links, std::shared_ptr<Operation> operation, std::shared_ptr<Event> ended);
  void follow(DeviceGroup& links, std::shared_ptr<LinkRecording> recording);
  /// Waits at most `seconds` for the end of what is in flight, and forgets the group.
  void leave(DeviceGroup& links, double seconds);

 private:
  class Impl;
  Device& device_;
  std::shared_ptr<EventPool> events_;
  std::unique_ptr<Impl> impl_;
};

}  // namespace weft
