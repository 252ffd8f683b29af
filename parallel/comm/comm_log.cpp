#include "parallel/comm/comm_log.hpp"

#include <functional>

#include "core/base/clock.hpp"
#include "parallel/comm/flight_recorder.hpp"

namespace weft {
namespace {

std::uint64_t hash_of(std::string_view name, const std::vector<int>& members) {
  // FNV-1a: std::hash may differ between builds, and the hash is compared across ranks.
  std::uint64_t hash = 0xcbf29ce484222325u;
  const auto take = [&hash](unsigned char byte) { hash = (hash ^ byte) * 0x100000001b3u; };
  for (const char c : name) take(static_cast<unsigned char>(c));
  for (const int member : members)
    for (int shift = 0; shift < 32; shift += 8) take(static_cast<unsigned char>(member >> shift));
  return hash;
}

}  // namespace

GroupRecord::GroupRecord(std::string name_, std::vector<int> members_)
    : name(std::move(name_)), members(std::move(members_)), id(hash_of(name, members)) {}

CommLog::CommLog() { now_.phase_begun = seconds_now(); }
CommLog::~CommLog() = default;

void CommLog::set_step(std::int64_t step) {
  const double now = seconds_now();
  const std::lock_guard lock(mutex_);
  now_.step = step;
  now_.phase_begun = now;
  if (recorder_) recorder_->set_step(step);
}

void CommLog::set_phase(const char* phase, double allowed_seconds) {
  const double now = seconds_now();
  const std::lock_guard lock(mutex_);
  now_.phase = phase;
  now_.phase_begun = now;
  now_.phase_allowed = allowed_seconds;
  if (recorder_) recorder_->set_phase(phase);
}

void CommLog::moves() {
  const double now = seconds_now();
  const std::lock_guard lock(mutex_);
  now_.phase_begun = now;
}

Activity CommLog::activity() const {
  const std::lock_guard lock(mutex_);
  Activity activity = now_;
  for (const auto& [record, active] : active_) activity.active.push_back(active.what);
  for (const auto& [id, begun] : lanes_) activity.lanes.push_back({id, begun});
  return activity;
}

std::vector<CollectiveTotals> CommLog::totals() const {
  const std::lock_guard lock(mutex_);
  return ledger_.totals();
}

double CommLog::exposed_seconds() const {
  const std::lock_guard lock(mutex_);
  return ledger_.exposed_seconds();
}

std::uint64_t CommLog::wire_bytes() const {
  const std::lock_guard lock(mutex_);
  return ledger_.wire_bytes();
}

void CommLog::open_flight_recorder(const std::filesystem::path& path, int rank, const std::string& host) {
  auto recorder = std::make_unique<FlightRecorder>(path, rank, host);
  const std::lock_guard lock(mutex_);
  recorder->set_step(now_.step);
  recorder->set_phase(now_.phase);
  recorder->beat();
  recorder_ = std::move(recorder);
}

void CommLog::beat() {
  const std::lock_guard lock(mutex_);
  if (recorder_) recorder_->beat();
}

void CommLog::begin(Operation& operation, const std::shared_ptr<GroupRecord>& group, std::uint64_t bytes, BegunBy by) {
  const double now = seconds_now();
  const std::lock_guard lock(mutex_);
  operation.log_ = this;
  operation.record_ = next_record_++;
  operation.group_ = group;
  operation.wire_bytes_ = bytes;
  Active& active = active_[operation.record_];
  const Collective& what = operation.what();
  const auto world_rank = [&](int member) { return group->members[static_cast<std::size_t>(member)]; };
  const int peer = is_message(what.kind) ? world_rank(what.peer) : -1;
  const int source = what.kind == CollectiveKind::send_recv ? world_rank(what.source) : peer;
  GroupLane lane;
  if (!is_message(what.kind)) {
    lane.id = by == BegunBy::host ? group->id : ~group->id;
    lane.begun = ++lanes_[lane.id];
  }
  active.what = {group, what.kind, peer, source, what.sequence, bytes, lane, now, now, false};
  if (recorder_) active.entry = recorder_->begin(what, group->name, bytes);
}

void CommLog::progressed(const Operation& operation) {
  const double now = seconds_now();
  const std::lock_guard lock(mutex_);
  if (const auto found = active_.find(operation.record_); found != active_.end()) found->second.what.progress = now;
}

void CommLog::withdraw(const Operation& operation) {
  const std::lock_guard lock(mutex_);
  const auto found = active_.find(operation.record_);
  if (found == active_.end()) return;
  const auto& [what, entry] = found->second;
  if (recorder_ && entry) recorder_->end(*entry);
  if (!is_message(what.kind)) --lanes_[what.lane.id];
  active_.erase(found);
}

void CommLog::end(Operation& operation) {
  const double now = seconds_now();
  const std::lock_guard lock(mutex_);
  const auto found = active_.find(operation.record_);
  if (found == active_.end()) return;
  const auto& [what, entry] = found->second;
  ledger_.ended(what.group->name, what.kind, what.bytes, now - what.begun);
  if (recorder_ && entry) recorder_->end(*entry);
  active_.erase(found);
}

void CommLog::waiting(const Operation& operation) {
  const std::lock_guard lock(mutex_);
  if (const auto found = active_.find(operation.record_); found != active_.end()) found->second.what.awaited = true;
}

void CommLog::waited(const Operation& operation, double seconds) {
  const std::lock_guard lock(mutex_);
  ledger_.exposed(operation.group_->name, operation.what().kind, seconds);
}

}  // namespace weft
