#include "parallel/comm/heartbeat.hpp"

#include <algorithm>
#include <cstring>
#include <map>

namespace weft {
namespace {

class Writer {
 public:
  template <class T>
  requires std::is_trivially_copyable_v<T>
  void put(T value) {
    const auto* from = reinterpret_cast<const std::byte*>(&value);
    bytes.insert(bytes.end(), from, from + sizeof value);
  }
  void put(const std::string& text) {
    const auto length = static_cast<std::uint8_t>(std::min<std::size_t>(text.size(), 32));
    put(length);
    const auto* from = reinterpret_cast<const std::byte*>(text.data());
    bytes.insert(bytes.end(), from, from + length);
  }
  std::vector<std::byte> bytes;
};

class Reader {
 public:
  explicit Reader(std::span<const std::byte> bytes) : bytes_(bytes) {}
  template <class T>
  void get(T& value) {
    std::memcpy(&value, take(sizeof value).data(), sizeof value);
  }
  void get(std::string& text) {
    std::uint8_t length = 0;
    get(length);
    const auto from = take(length);
    text.assign(reinterpret_cast<const char*>(from.data()), from.size());
  }

 private:
  std::span<const std::byte> take(std::size_t count) {
    WEFT_CHECK(count <= bytes_.size(), "a heartbeat was cut short");
    const auto front = bytes_.first(count);
    bytes_ = bytes_.subspan(count);
    return front;
  }
  std::span<const std::byte> bytes_;
};

std::string collective_text(const Heartbeat& beat) {
  return fmt::format("{} #{} of {} ({} bytes)", name_of(beat.kind), beat.sequence, beat.group, beat.bytes);
}

/// A send meets no send, and a recv no recv.
bool can_pair(CollectiveKind one, CollectiveKind other) { return one != other || one == CollectiveKind::send_recv; }

}  // namespace

std::string ranks_text(std::vector<int> ranks) {
  std::sort(ranks.begin(), ranks.end());
  std::string text = ranks.size() == 1 ? "rank " : "ranks ";
  for (std::size_t i = 0; i < ranks.size();) {
    std::size_t last = i;
    while (last + 1 < ranks.size() && ranks[last + 1] == ranks[last] + 1) ++last;
    if (i > 0) text += ",";
    text += last == i ? fmt::format("{}", ranks[i]) : fmt::format("{}-{}", ranks[i], ranks[last]);
    i = last + 1;
  }
  return text;
}

Heartbeat make_heartbeat(int rank, const Activity& activity, double now) {
  Heartbeat beat;
  beat.rank = rank;
  beat.step = activity.step;
  beat.phase = activity.phase;
  beat.phase_seconds = now - activity.phase_begun;
  beat.phase_allowed = activity.phase_allowed;
  beat.lanes.assign(activity.lanes.begin(),
                    activity.lanes.begin() + static_cast<std::ptrdiff_t>(std::min(activity.lanes.size(), most_lanes)));
  if (activity.active.empty()) return beat;
  const ActiveCollective& oldest = activity.active.front();
  beat.in_collective = true;
  beat.kind = oldest.kind;
  beat.group = oldest.group->name;
  beat.group_id = oldest.group->id;
  beat.lane = oldest.lane;
  beat.sequence = oldest.sequence;
  beat.bytes = oldest.bytes;
  beat.stalled_seconds = now - oldest.progress;
  beat.awaited = oldest.awaited;
  constexpr double worth_telling_seconds = 1;
  if (is_message(oldest.kind))
    beat.members = oldest.source == oldest.peer ? std::vector{oldest.peer} : std::vector{oldest.peer, oldest.source};
  else if (beat.stalled_seconds >= worth_telling_seconds)
    beat.members = oldest.group->members;
  return beat;
}

std::vector<std::byte> encode(const Heartbeat& beat) {
  Writer to;
  to.put(beat.rank);
  to.put(beat.step);
  to.put(beat.phase);
  to.put(beat.phase_seconds);
  to.put(beat.phase_allowed);
  to.put(beat.in_collective);
  to.put(beat.kind);
  to.put(beat.group);
  to.put(beat.group_id);
  to.put(beat.sequence);
  to.put(beat.bytes);
  to.put(beat.stalled_seconds);
  to.put(beat.awaited);
  to.put(static_cast<std::int32_t>(beat.members.size()));
  for (const int member : beat.members) to.put(member);
  to.put(beat.lane);
  to.put(static_cast<std::int32_t>(beat.lanes.size()));
  for (const GroupLane& lane : beat.lanes) to.put(lane);
  return std::move(to.bytes);
}

Heartbeat decode_heartbeat(std::span<const std::byte> bytes) {
  Heartbeat beat;
  Reader from(bytes);
  from.get(beat.rank);
  from.get(beat.step);
  from.get(beat.phase);
  from.get(beat.phase_seconds);
  from.get(beat.phase_allowed);
  from.get(beat.in_collective);
  from.get(beat.kind);
  from.get(beat.group);
  from.get(beat.group_id);
  from.get(beat.sequence);
  from.get(beat.bytes);
  from.get(beat.stalled_seconds);
  from.get(beat.awaited);
  std::int32_t members = 0;
  from.get(members);
  for (int i = 0; i < members; ++i) from.get(beat.members.emplace_back());
  from.get(beat.lane);
  std::int32_t lanes = 0;
  from.get(lanes);
  for (int i = 0; i < lanes; ++i) from.get(beat.lanes.emplace_back());
  return beat;
}

std::size_t largest_heartbeat(int world_size) {
  constexpr std::size_t fixed_fields = 256;
  return fixed_fields + most_lanes * sizeof(GroupLane) + sizeof(std::int32_t) * static_cast<std::size_t>(world_size);
}

HeartbeatMonitor::HeartbeatMonitor(std::vector<RankPlace> places, double timeout_seconds, double now)
    : places_(std::move(places)), timeout_(timeout_seconds), last_check_(now), seen_(places_.size()) {
  for (auto& seen : seen_) seen.heard = now;
}

void HeartbeatMonitor::observe(const Heartbeat& beat, double now) {
  WEFT_CHECK(0 <= beat.rank && beat.rank < static_cast<int>(seen_.size()), "a heartbeat of rank {}", beat.rank);
  auto& seen = seen_[static_cast<std::size_t>(beat.rank)];
  seen.before = seen.any ? std::move(seen.beat) : beat;
  seen.beat = beat;
  seen.heard = now;
  seen.any = true;
}

double HeartbeatMonitor::silence(int rank, double now) const {
  return now - seen_[static_cast<std::size_t>(rank)].heard;
}

std::optional<std::string> HeartbeatMonitor::check(double now) {
  const double pause = now - last_check_;
  last_check_ = now;
  constexpr double own_pause_seconds = 1;
  if (pause > own_pause_seconds)
    for (auto& seen : seen_) {
      seen.heard += pause;
      seen.beat.stalled_seconds = 0;
    }
  if (auto report = silent_ranks(now)) return report;
  return stuck_ranks(now);
}

std::string HeartbeatMonitor::place_text(int rank) const {
  const auto& place = places_[static_cast<std::size_t>(rank)];
  return fmt::format("rank {} (host {}, pid {})", rank, place.host, place.pid);
}

std::string HeartbeatMonitor::doing_text(int rank) const {
  const auto& [beat, before, heard, any] = seen_[static_cast<std::size_t>(rank)];
  if (!any) return "before its first heartbeat";
  std::string text = fmt::format("step {}, {}", beat.step, beat.phase);
  if (beat.in_collective)
    text += fmt::format(", {} {}", beat.awaited ? "waiting in" : "running", collective_text(beat));
  else
    text += ", in no collective";
  return text;
}

std::string HeartbeatMonitor::others_text(const std::vector<int>& except) const {
  std::map<std::string, std::vector<int>> by_activity;
  for (int rank = 0; rank < static_cast<int>(seen_.size()); ++rank)
    if (std::find(except.begin(), except.end(), rank) == except.end()) by_activity[doing_text(rank)].push_back(rank);
  std::string text;
  for (const auto& [doing, ranks] : by_activity) text += fmt::format("\n  {}: {}", ranks_text(ranks), doing);
  return text;
}

std::optional<std::string> HeartbeatMonitor::silent_ranks(double now) const {
  std::vector<int> silent;
  for (int rank = 0; rank < static_cast<int>(seen_.size()); ++rank)
    if (silence(rank, now) > timeout_) silent.push_back(rank);
  if (silent.empty()) return std::nullopt;
  std::string text;
  constexpr std::size_t named = 16;
  for (std::size_t i = 0; i < std::min(silent.size(), named); ++i)
    text += fmt::format("{}{} has been silent for {:.1f} s: stopped, dead or cut off; it was last heard in {}",
                        i == 0 ? "" : "\n", place_text(silent[i]), silence(silent[i], now), doing_text(silent[i]));
  if (silent.size() > named) text += fmt::format("\nand {} more: {}", silent.size() - named, ranks_text(silent));
  return text + others_text(silent);
}

// Whoever has begun a collective is not missing from it, though it may have ended there and not yet here.
bool HeartbeatMonitor::is_missing(const Seen& other, const Heartbeat& waiting) const {
  if (!is_message(waiting.kind)) {
    const auto& lanes = other.beat.lanes;
    const auto lane = std::ranges::find(lanes, waiting.lane.id, &GroupLane::id);
    if (lane == lanes.end()) return lanes.size() < most_lanes;
    const bool in_another_kind = other.beat.in_collective && other.beat.lane.id == waiting.lane.id &&
                                 other.beat.lane.begun == waiting.lane.begun && other.beat.kind != waiting.kind;
    return lane->begun < waiting.lane.begun || in_another_kind;
  }
  // One that it has just ended may stand in the last beat of the other side: two beats tell.
  const auto meets = [&](const Heartbeat& beat) {
    return beat.in_collective && beat.group_id == waiting.group_id && is_message(beat.kind) &&
           can_pair(waiting.kind, beat.kind) && std::ranges::find(beat.members, waiting.rank) != beat.members.end();
  };
  return !meets(other.beat) && !meets(other.before);
}

std::vector<int> HeartbeatMonitor::missing_from(const Heartbeat& waiting) const {
  std::vector<int> missing;
  for (const int member : waiting.members)
    if (is_missing(seen_[static_cast<std::size_t>(member)], waiting)) missing.push_back(member);
  return missing;
}

std::optional<std::string> HeartbeatMonitor::stuck_ranks(double now) {
  struct Absence {
    const Heartbeat* waiting;
    double seconds;
  };
  // By missing rank: the first that waits for it. A missing rank that itself waits in another collective is a cause
  // only if no rank is missing that waits for nobody.
  std::map<int, Absence> idle, elsewhere;
  // What a rank does now is not known when it has not been heard for a while; if it stays silent, that is the report.
  const auto unknown = [&](const Seen& seen) { return now - seen.heard > timeout_ / 2; };
  somebody_works_ = false;
  for (const auto& seen : seen_) {
    const double stalled = seen.beat.stalled_seconds + (now - seen.heard);
    // Whoever has waited for half the time-out may itself be what a longer wait is for.
    if (!seen.any || !seen.beat.in_collective || stalled <= timeout_ / 2 || unknown(seen)) continue;
    for (const int missing : missing_from(seen.beat)) {
      const auto& [beat, before, heard, any] = seen_[static_cast<std::size_t>(missing)];
      if (unknown(seen_[static_cast<std::size_t>(missing)])) continue;
      const double in_phase = beat.phase_seconds + (now - heard);
      if (in_phase <= timeout_ || (!beat.in_collective && in_phase < beat.phase_allowed)) {
        if (!beat.awaited) somebody_works_ = true;
        continue;
      }
      if (stalled <= timeout_) continue;
      if (!beat.in_collective)
        idle.try_emplace(missing, Absence{&seen.beat, stalled});
      else if (beat.stalled_seconds + (now - heard) > timeout_ / 2)
        elsewhere.try_emplace(missing, Absence{&seen.beat, stalled});
    }
  }
  if (idle.empty() && somebody_works_) return std::nullopt;
  const auto& causes = idle.empty() ? elsewhere : idle;
  if (causes.empty()) return std::nullopt;
  std::vector<int> ranks;
  std::string text;
  constexpr std::size_t named = 16;
  for (const auto& [rank, absence] : causes) {
    ranks.push_back(rank);
    if (ranks.size() > named) continue;
    text += fmt::format("{}{} is missing from {}, in which rank {} has waited for {:.1f} s; it is in {}",
                        text.empty() ? "" : "\n", place_text(rank), collective_text(*absence.waiting),
                        absence.waiting->rank, absence.seconds, doing_text(rank));
  }
  if (ranks.size() > named) text += fmt::format("\nall that are missing: {}", ranks_text(ranks));
  return text + others_text(ranks);
}

}  // namespace weft
