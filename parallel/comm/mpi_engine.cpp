#include "parallel/comm/mpi_engine.hpp"

#include <sched.h>
#include <sys/prctl.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <map>

#include "core/base/clock.hpp"
#include "core/base/log.hpp"
#include "parallel/comm/mpi_check.hpp"

namespace weft {
namespace {

constexpr int no_status = INT_MIN;
/// Bulk collectives that move at a time; the others wait their turn, in program order.
constexpr std::size_t bulk_at_a_time = 2;
/// Somebody is blocked and nothing else may need this core: poll for so long before napping.
constexpr double poll_seconds = 100e-6;
constexpr double shortest_nap_seconds = 20e-6;
constexpr double longest_nap_seconds = 1e-3;
/// A nap is this part of the time since something last moved, so that polling costs little and is late by little.
constexpr double nap_share = 1.0 / 8;
/// After a message of another length than expected: how long the neighbours' descriptors may take to explain it.
constexpr double explanation_seconds = 1;
constexpr double abort_answer_seconds = 2;

bool is_message(const Collective& what) { return is_message(what.kind); }

std::size_t slot_of(const Collective& what) { return static_cast<std::size_t>(what.sequence % mpi_window); }

}  // namespace

MpiEngine::MpiEngine(MPI_Comm data, CommLog& log, std::unique_ptr<MpiHeart> heart, Options options)
    : data_(data), log_(log), heart_(std::move(heart)), options_(std::move(options)), abort_status_(no_status),
      board_(data) {
  void* attribute = nullptr;
  int found = 0;
  check_mpi(MPI_Comm_get_attr(data_, MPI_TAG_UB, &attribute, &found), "MPI_Comm_get_attr");
  if (found) highest_tag_ = *static_cast<int*>(attribute);
  thread_ = std::thread([this] { run(); });
}

MpiEngine::~MpiEngine() { stop(); }

bool MpiEngine::stop() {
  if (thread_.joinable()) {
    {
      const std::lock_guard lock(mutex_);
      stopping_.store(true);
    }
    wake_.notify_one();
    thread_.join();
  }
  return !failed() && urgent_.empty() && bulk_.empty() && queued_.empty() && abandoned_.empty();
}

void MpiEngine::reserve_context(int context) {
  constexpr int contexts_of_a_group = 2;
  const int next = context + contexts_of_a_group;
  WEFT_CHECK(mpi_tag(next, 0, 0) - 1 <= highest_tag_, "too many groups: this MPI has tags up to {}", highest_tag_);
  if (free_context_.load() < next) free_context_.store(next);
}

void MpiEngine::submit(std::shared_ptr<Operation> operation, std::shared_ptr<MpiGroup> group) {
  if (failed()) {
    operation->finish(std::make_exception_ptr(Error("communication has failed before")));
    return;
  }
  operation->on_wait = [this] {
    const std::lock_guard lock(mutex_);
    wake_.notify_one();
  };
  {
    const std::lock_guard lock(mutex_);
    submitted_.push_back({std::move(operation), std::move(group)});
    something_submitted_.store(true, std::memory_order_release);
  }
  wake_.notify_one();
}

void MpiEngine::abort_job(int status) {
  if (std::this_thread::get_id() != thread_.get_id()) {
    abort_status_.store(status);
    {
      const std::lock_guard lock(mutex_);
      wake_.notify_one();
    }
    std::this_thread::sleep_for(std::chrono::duration<double>(abort_answer_seconds));
  }
  MPI_Abort(data_, status);
}

void MpiEngine::take_submitted() {
  if (!something_submitted_.load(std::memory_order_acquire)) return;
  const std::lock_guard lock(mutex_);
  for (auto& submitted : submitted_) queued_.push_back(std::move(submitted));
  submitted_.clear();
  something_submitted_.store(false, std::memory_order_release);
}

void MpiEngine::admit() {
  bool bulk_waits = false;
  // The oldest collective of each group that stays queued: its tags, and so those of the one a window later, are its own.
  std::map<const MpiGroup*, std::uint64_t> oldest;
  for (auto next = queued_.begin(); next != queued_.end();) {
    const Collective& what = next->operation->what();
    const bool bulk = what.priority == Priority::bulk && !is_message(what);
    const auto older = oldest.find(next->group.get());
    const bool slot_taken = !is_message(what) && (next->group->in_flight[slot_of(what)] ||
                                                  (older != oldest.end() && what.sequence - older->second >= mpi_window));
    if (slot_taken || (bulk && (bulk_waits || bulk_.size() >= bulk_at_a_time))) {
      bulk_waits = bulk_waits || bulk;
      if (!is_message(what)) oldest.emplace(next->group.get(), what.sequence);
      ++next;
      continue;
    }
    Submitted submitted = std::move(*next);
    next = queued_.erase(next);
    start(std::move(submitted));
  }
}

void MpiEngine::start(Submitted submitted) {
  auto running = std::make_unique<Running>();
  running->operation = std::move(submitted.operation);
  running->group = std::move(submitted.group);
  running->keep = running->operation->keep();
  const Collective& what = running->operation->what();
  MpiGroup& group = *running->group;
  const bool message = is_message(what);
  const int context = message ? group.context + 1 : group.context;
  const int slot = message ? what.tag : static_cast<int>(slot_of(what));
  for (int lane = 0; lane < mpi_lanes; ++lane)
    running->lanes.push_back(std::make_unique<Lane>(board_, group, mpi_tag(context, slot, lane), pool_));
  if (!message) group.in_flight.set(slot_of(what));
  auto flows = make_flows(what, running->lanes, options_.tuning);
  for (std::size_t lane = 0; lane < flows.size(); ++lane)
    running->strands.push_back({std::move(flows[lane]), running->lanes[lane].get()});
  Lane& check = *running->lanes[mpi_check_lane];
  if (options_.compares && !message)
    running->strands.push_back({check_flow(check, what), &check});
  else
    running->explained = true;
  // Messages are posted now, in program order: those between a pair with one tag must not pass each other.
  advance(*running, seconds_now());
  last_moved_ = seconds_now();
  auto& list = what.priority == Priority::bulk ? bulk_ : urgent_;
  list.push_back(std::move(running));
}

MpiEngine::Moved MpiEngine::advance(Running& running, double now) {
  auto moved = Moved::no;
  for (Strand& strand : running.strands) {
    if (strand.over) continue;
    const bool compares = strand.lane == running.lanes[mpi_check_lane].get();
    try {
      if (!strand.lane->test()) continue;
      moved = Moved::yes;
      strand.flow.resume();
      if (!strand.flow.done()) continue;
      strand.over = true;
      if (strand.flow.error()) std::rethrow_exception(strand.flow.error());
    } catch (...) {
      strand.over = true;
      if (!running.error) running.failed_at = now;
      if (!running.error || compares) running.error = std::current_exception();
    }
    if (compares && strand.over) running.explained = true;
  }
  if (moved == Moved::yes) log_.progressed(*running.operation);
  return moved;
}

bool MpiEngine::over(const Running& running, double now) const {
  if (running.error) return running.explained || now - running.failed_at > explanation_seconds;
  return std::all_of(running.strands.begin(), running.strands.end(), [](const Strand& strand) { return strand.over; });
}

MpiEngine::Moved MpiEngine::advance_all(double now) {
  auto moved = Moved::no;
  for (auto* list : {&urgent_, &bulk_})
    for (std::size_t i = 0; i < list->size();) {
      if (advance(*(*list)[i], now) == Moved::yes) moved = Moved::yes;
      if (over(*(*list)[i], now)) {
        auto ended = std::move((*list)[i]);
        list->erase(list->begin() + static_cast<std::ptrdiff_t>(i));
        finish(std::move(ended));
        moved = Moved::yes;
      } else {
        ++i;
      }
      // A bulk message was handled, which may have taken a while: urgent ones first.
      if (list == &bulk_ && moved == Moved::yes && (!urgent_.empty() || something_submitted_)) return moved;
    }
  return moved;
}

void MpiEngine::finish(std::unique_ptr<Running> running) {
  const auto operation = running->operation;
  const std::exception_ptr error = running->error;
  if (!is_message(operation->what())) running->group->in_flight.reset(slot_of(operation->what()));
  if (error) {
    failed_.store(true);
    bool clean = true;
    for (auto& lane : running->lanes) clean = board_.cancel(*lane) && clean;
    if (!clean) abandoned_.push_back(std::move(running));
  }
  running.reset();
  operation->finish(error);
}

void MpiEngine::fail_all(const std::string& report) {
  failed_.store(true);
  log_error("{}", report);
  if (options_.on_failure) options_.on_failure(report);
  const auto error = std::make_exception_ptr(Error(report));
  take_submitted();
  for (auto* list : {&urgent_, &bulk_})
    for (auto& running : std::exchange(*list, {})) {
      running->error = error;
      finish(std::move(running));
    }
  for (auto& submitted : std::exchange(queued_, {})) submitted.operation->finish(error);
}

bool MpiEngine::awaited() const {
  const auto waits = [](const auto& running) { return running->operation->awaited(); };
  return std::any_of(urgent_.begin(), urgent_.end(), waits) || std::any_of(bulk_.begin(), bulk_.end(), waits);
}

void MpiEngine::pause(double now) {
  constexpr double long_seconds = 1;
  double nap = heart_ ? heart_->next() - now : long_seconds;
  if (!urgent_.empty() || !bulk_.empty()) {
    if (now - last_moved_ < poll_seconds && awaited()) {
      ::sched_yield();
      return;
    }
    nap = std::min(nap, std::clamp(nap_share * (now - last_moved_), shortest_nap_seconds, longest_nap_seconds));
  }
  std::unique_lock lock(mutex_);
  if (something_submitted_ || stopping_ || abort_status_ != no_status) return;
  if (nap > 0) wake_.wait_for(lock, std::chrono::duration<double>(nap));
}

void MpiEngine::serve() {
  constexpr double patience_seconds = 1;
  for (double stop_begun = 0;;) {
    take_submitted();
    admit();
    const double now = seconds_now();
    board_.poll();
    const Moved moved = advance_all(now);
    if (abort_status_ != no_status) MPI_Abort(data_, abort_status_);
    if (heart_)
      if (const auto report = heart_->tick(now)) fail_all(*report);
    if (stopping_) {
      if (stop_begun == 0) stop_begun = now;
      const bool idle = urgent_.empty() && bulk_.empty() && queued_.empty() && !something_submitted_;
      if (idle || failed() || now - stop_begun > patience_seconds) return;
    }
    if (moved == Moved::yes)
      last_moved_ = now;
    else
      pause(now);
  }
}

void MpiEngine::run() {
  ::prctl(PR_SET_NAME, "weft-comm");
  // The default slack of 50 µs would make every short nap three times as long.
  ::prctl(PR_SET_TIMERSLACK, 1000);
  try {
    serve();
  } catch (const std::exception& error) {
    fail_all(fmt::format("communication failed: {}", error.what()));
  }
}

}  // namespace weft
