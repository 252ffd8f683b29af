// One per process, made in main: what this rank is doing and has communicated. Communicators write it; the trainer sets
// step and phase; the flight recorder, the heartbeat and the metrics read it. Thread-safe.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "parallel/comm/ledger.hpp"
#include "parallel/comm/operation.hpp"

namespace weft {

class FlightRecorder;

/// One group as this rank's log knows it.
class GroupRecord {
 public:
  GroupRecord(std::string name, std::vector<int> members);
  const std::string name;
  const std::vector<int> members;  ///< world ranks
  const std::uint64_t id;          ///< the same on all members: a hash of name and members
};

/// The collectives of one group that all its ranks begin in the same order: those that the host starts, or those of recorded
/// steps, which begin when the device comes to them. Messages are in none.
struct GroupLane {
  std::uint64_t id = 0;     ///< the same on all members
  std::uint64_t begun = 0;  ///< so far, on one rank
};
enum class BegunBy : std::uint8_t { host, replay };

/// A collective in flight.
struct ActiveCollective {
  std::shared_ptr<GroupRecord> group;
  CollectiveKind kind = CollectiveKind::barrier;
  int peer = -1;    ///< world rank of the other side of a send or recv, the destination of a send_recv
  int source = -1;  ///< world rank of the source of a send_recv, else peer
  std::uint64_t sequence = 0;
  std::uint64_t bytes = 0;
  GroupLane lane;       ///< its own, when it had begun
  double begun = 0;     ///< seconds_now()
  double progress = 0;  ///< seconds_now() when bytes last moved
  bool awaited = false;
};

/// What this rank is doing.
struct Activity {
  std::int64_t step = -1;
  std::string phase = "start";
  double phase_begun = 0;    ///< seconds_now() at the last set_step() or set_phase()
  double phase_allowed = 0;  ///< seconds that others may wait for it without alarm, if more than the time-out
  std::vector<ActiveCollective> active;  ///< oldest first
  std::vector<GroupLane> lanes;
};

class CommLog {
 public:
  CommLog();
  ~CommLog();
  CommLog(const CommLog&) = delete;
  CommLog& operator=(const CommLog&) = delete;

  void set_step(std::int64_t step);
  /// A short name ("forward", "checkpoint", …). `allowed_seconds`: how long the phase may keep other ranks waiting when
  /// that is longer than the watchdog's time-out (saving a checkpoint, sampling). Each call, of the same name
  /// too, and each set_step() is a sign that the program moves.
  void set_phase(const char* phase, double allowed_seconds = 0);
  /// The program moves within its phase: others have a reason to wait.
  void moves();
  Activity activity() const;

  std::vector<CollectiveTotals> totals() const;
  /// Seconds that callers of this rank were blocked in wait(), since the start.
  double exposed_seconds() const;
  /// Bytes sent since the start.
  std::uint64_t wire_bytes() const;

  /// From here on each collective is also written to the file `path`.
  void open_flight_recorder(const std::filesystem::path& path, int rank, const std::string& host);
  /// Stamps the flight record's header; called by the heartbeat.
  void beat();

  /// For communicators: the operation begins now, reports its end through `operation`, and its waits are timed.
  void begin(Operation& operation, const std::shared_ptr<GroupRecord>& group, std::uint64_t bytes,
             BegunBy by = BegunBy::host);
  /// For Operation: it does not run now.
  void withdraw(const Operation& operation);
  /// For transports: bytes of the operation moved.
  void progressed(const Operation& operation);
  /// For Operation.
  void end(Operation& operation);
  void waiting(const Operation& operation);
  void waited(const Operation& operation, double seconds);

 private:
  struct Active {
    ActiveCollective what;
    std::optional<std::uint64_t> entry;  ///< in the flight recorder
  };

  mutable std::mutex mutex_;
  Activity now_;
  std::map<std::uint64_t, Active> active_;
  std::map<std::uint64_t, std::uint64_t> lanes_;  ///< begun, by id
  std::uint64_t next_record_ = 1;
  CollectiveLedger ledger_;
  std::unique_ptr<FlightRecorder> recorder_;
};

}  // namespace weft
