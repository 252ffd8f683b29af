#include "parallel/comm/link_watch.hpp"

#include <sys/prctl.h>

#include <chrono>
#include <condition_variable>
#include <map>
#include <thread>

#include "core/base/clock.hpp"

namespace weft {
namespace {

constexpr std::chrono::microseconds nap{500};               // with operations in flight
constexpr std::chrono::milliseconds nap_of_recordings{5};   // when only a replay could begin some
constexpr std::chrono::milliseconds nap_between_polls{50};  // with nothing in flight: a link may fail then too
constexpr double poll_seconds = 0.05;                       // between looks for errors

}  // namespace

std::shared_ptr<Event> EventPool::take() {
  std::unique_ptr<Event> event;
  {
    const std::lock_guard lock(mutex_);
    if (!free_.empty()) {
      event = std::move(free_.back());
      free_.pop_back();
    }
  }
  if (!event) event = device_.make_event();
  return {event.release(), [pool = shared_from_this()](Event* dropped) {
            std::unique_ptr<Event> back(dropped);
            const std::lock_guard lock(pool->mutex_);
            pool->free_.push_back(std::move(back));
          }};
}

LinkRecording::LinkRecording(Allocator& host_memory, std::uint64_t number)
    : host_memory_(host_memory), number_(number),
      counters_(static_cast<std::int64_t*>(host_memory.allocate(2 * sizeof(std::int64_t), MemoryUse::communication))) {
  counters_[0] = counters_[1] = 0;
}

LinkRecording::~LinkRecording() {
  host_memory_.deallocate(counters_, 2 * sizeof(std::int64_t), MemoryUse::communication);
}

MutView LinkRecording::counter(std::int64_t index) const { return {counters_ + index, {1}, DType::i64}; }

std::int64_t LinkRecording::read(std::int64_t index) const {
  return std::atomic_ref(counters_[index]).load(std::memory_order_acquire);
}

void LinkRecording::add(std::shared_ptr<Operation> operation) {
  const std::lock_guard lock(mutex_);
  operations_.push_back(std::move(operation));
}

void LinkRecording::begin_next() {
  running_.push_back(operations_[static_cast<std::size_t>(begun_) % operations_.size()]->replayed());
  ++begun_;
}

void LinkRecording::follow() {
  const std::lock_guard lock(mutex_);
  const std::int64_t ended = read(1), begun = read(0);
  for (; ended_ < ended; ++ended_) {
    if (running_.empty()) begin_next();
    running_.front()->finish();
    running_.pop_front();
  }
  while (begun_ < begun) begin_next();
}

class LinkWatch::Impl {
 public:
  Impl(Device& device, OnFailure on_failure)
      : device_(device), on_failure_(std::move(on_failure)), thread_([this] { run(); }) {}
  ~Impl() {
    {
      const std::lock_guard lock(mutex_);
      stopping_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

  void follow(DeviceGroup& links, std::shared_ptr<Operation> operation, std::shared_ptr<Event> ended);
  void follow(DeviceGroup& links, std::shared_ptr<LinkRecording> recording);
  void leave(DeviceGroup& links, double seconds);

 private:
  struct InFlight {
    std::shared_ptr<Operation> operation;
    std::shared_ptr<Event> ended;
  };
  struct Group {
    std::deque<InFlight> in_flight;
    std::vector<std::shared_ptr<LinkRecording>> recordings;
  };

  void run();
  void look();

  Device& device_;
  OnFailure on_failure_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::map<DeviceGroup*, Group> groups_;
  double polled_ = 0;  ///< seconds_now() of the last look for errors
  bool stopping_ = false;
  std::exception_ptr failure_;
  std::thread thread_;
};

void LinkWatch::Impl::follow(DeviceGroup& links, std::shared_ptr<Operation> operation, std::shared_ptr<Event> ended) {
  std::exception_ptr failure;
  {
    const std::lock_guard lock(mutex_);
    failure = failure_;
    if (!failure) groups_[&links].in_flight.push_back({operation, std::move(ended)});
  }
  if (failure) operation->finish(failure);
  changed_.notify_all();
}

void LinkWatch::Impl::follow(DeviceGroup& links, std::shared_ptr<LinkRecording> recording) {
  {
    const std::lock_guard lock(mutex_);
    groups_[&links].recordings.push_back(std::move(recording));
  }
  changed_.notify_all();
}

void LinkWatch::Impl::leave(DeviceGroup& links, double seconds) {
  std::unique_lock lock(mutex_);
  const auto found = groups_.find(&links);
  if (found == groups_.end()) return;
  Group& group = found->second;
  changed_.wait_for(lock, std::chrono::duration<double>(seconds), [&] { return group.in_flight.empty(); });
  for (const auto& recording : group.recordings) recording->follow();
  const std::deque<InFlight> left = std::move(group.in_flight);
  groups_.erase(found);
  lock.unlock();
  for (const InFlight& one : left)
    one.operation->finish(std::make_exception_ptr(Error("a collective had not ended when its group went")));
}

void LinkWatch::Impl::run() {
  ::prctl(PR_SET_NAME, "weft-links");
  try {
    device_.enter_thread();
  } catch (const std::exception&) {  // the first event says it again
  }
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    bool in_flight = false, recordings = false;
    for (const auto& [links, group] : groups_) {
      in_flight = in_flight || !group.in_flight.empty();
      recordings = recordings || !group.recordings.empty();
    }
    if (in_flight)
      changed_.wait_for(lock, nap);
    else if (recordings)
      changed_.wait_for(lock, nap_of_recordings);
    else if (!groups_.empty())
      changed_.wait_for(lock, nap_between_polls);
    else
      changed_.wait(lock);
    if (failure_) continue;
    try {
      look();
    } catch (const std::exception& error) {
      failure_ = std::current_exception();
      const std::string report = error.what();
      lock.unlock();
      if (on_failure_) on_failure_(report);
      lock.lock();
      for (auto& [links, group] : groups_) {
        for (const InFlight& one : group.in_flight) one.operation->finish(failure_);
        group.in_flight.clear();
      }
    }
    changed_.notify_all();
  }
}

void LinkWatch::Impl::look() {
  const bool polls = seconds_now() - polled_ >= poll_seconds;
  if (polls) polled_ = seconds_now();
  bool moved = false;
  for (auto& [links, group] : groups_) {
    if (polls) links->poll();
    while (!group.in_flight.empty() && group.in_flight.front().ended->passed()) {
      group.in_flight.front().operation->finish();
      group.in_flight.pop_front();
      moved = true;
    }
    for (const auto& recording : group.recordings) recording->follow();
  }
  // They were enqueued long before the device comes to them: as long as it ends others, they wait for it and not for ranks.
  if (moved)
    for (const auto& [links, group] : groups_)
      for (const InFlight& one : group.in_flight) one.operation->progressed();
}

LinkWatch::LinkWatch(Device& device, OnFailure on_failure)
    : device_(device), events_(std::make_shared<EventPool>(device)),
      impl_(std::make_unique<Impl>(device, std::move(on_failure))) {}
LinkWatch::~LinkWatch() = default;

void LinkWatch::follow(DeviceGroup& links, std::shared_ptr<Operation> operation, std::shared_ptr<Event> ended) {
  impl_->follow(links, std::move(operation), std::move(ended));
}
void LinkWatch::follow(DeviceGroup& links, std::shared_ptr<LinkRecording> recording) {
  impl_->follow(links, std::move(recording));
}
void LinkWatch::leave(DeviceGroup& links, double seconds) { impl_->leave(links, seconds); }

}  // namespace weft
