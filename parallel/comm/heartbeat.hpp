// Finds a rank that stopped, or ranks that are stuck in a collective, from the ranks' heartbeats. Free of MPI and of
// clocks: the runtime feeds it.
#pragma once
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "parallel/comm/comm_log.hpp"

namespace weft {

/// What a rank tells the monitors, by default twice a second.
struct Heartbeat {
  int rank = 0;
  std::int64_t step = -1;
  std::string phase;
  double phase_seconds = 0;  ///< since the program last entered a phase or a step
  double phase_allowed = 0;
  bool in_collective = false;  ///< the fields below describe the oldest one in flight
  CollectiveKind kind = CollectiveKind::barrier;
  std::string group;
  std::uint64_t group_id = 0;
  GroupLane lane;
  std::uint64_t sequence = 0;
  std::uint64_t bytes = 0;
  double stalled_seconds = 0;    ///< since its bytes last moved
  bool awaited = false;          ///< the rank's program is blocked on it
  std::vector<int> members;      ///< world ranks; sent only when it has stalled for a while
  std::vector<GroupLane> lanes;  ///< of all groups, at most most_lanes of them
};
inline constexpr std::size_t most_lanes = 64;

Heartbeat make_heartbeat(int rank, const Activity& activity, double now);
std::vector<std::byte> encode(const Heartbeat& beat);
Heartbeat decode_heartbeat(std::span<const std::byte> bytes);

/// Where a rank runs.
struct RankPlace {
  std::string host;
  int pid = 0;
};

/// "rank 3", "ranks 0-3,7".
std::string ranks_text(std::vector<int> ranks);

/// Bytes that no encoded heartbeat of a world of that size exceeds.
std::size_t largest_heartbeat(int world_size);

/// The judgement of one monitor. `now` is seconds_now() of the caller.
class HeartbeatMonitor {
 public:
  /// `places` has one entry a world rank.
  HeartbeatMonitor(std::vector<RankPlace> places, double timeout_seconds, double now);

  void observe(const Heartbeat& beat, double now);
  /// A report if a rank is silent for longer than the time-out, or missing from a collective in which another has
  /// waited for that long and its own program has not moved to another phase or step for as long.
  /// Call it several times a second: after a pause of its own (this process was stopped, the machine slept) it counts
  /// afresh.
  std::optional<std::string> check(double now);
  /// At the last check(), ranks waited for one that still works: their waiting has a good reason.
  bool somebody_works() const { return somebody_works_; }
  /// Seconds since `rank` was last heard.
  double silence(int rank, double now) const;

 private:
  struct Seen {
    Heartbeat beat;
    Heartbeat before;  ///< the one before it
    double heard = 0;
    bool any = false;
  };
  std::optional<std::string> silent_ranks(double now) const;
  std::optional<std::string> stuck_ranks(double now);
  std::vector<int> missing_from(const Heartbeat& waiting) const;
  bool is_missing(const Seen& other, const Heartbeat& waiting) const;
  std::string place_text(int rank) const;
  std::string doing_text(int rank) const;
  /// What all other ranks do, those that do the same on one line.
  std::string others_text(const std::vector<int>& except) const;

  std::vector<RankPlace> places_;
  double timeout_;
  double last_check_;
  bool somebody_works_ = false;
  std::vector<Seen> seen_;
};

}  // namespace weft
