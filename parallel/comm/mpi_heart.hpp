// Sends this rank's heartbeats to the two monitors, ranks 0 and 1, and on those judges what arrives. Internal to the
// MPI runtime; the communication thread drives it.
#pragma once
#include <mpi.h>

#include <array>
#include <optional>
#include <string>
#include <vector>

#include "parallel/comm/comm_log.hpp"
#include "parallel/comm/heartbeat.hpp"

namespace weft {

class MpiHeart {
 public:
  /// `comm`: for heartbeats alone.
  MpiHeart(MPI_Comm comm, CommLog& log, std::vector<RankPlace> places, double timeout_seconds, double period_seconds);
  ~MpiHeart();
  MpiHeart(const MpiHeart&) = delete;
  MpiHeart& operator=(const MpiHeart&) = delete;

  /// seconds_now() at which tick() has something to do.
  double next() const { return next_tick_; }
  /// A report once something is wrong.
  std::optional<std::string> tick(double now);

 private:
  static constexpr int monitors = 2;
  void send(const Heartbeat& beat);
  void receive(double now);
  /// Tells a rank that has waited for long that the one it waits for still works.
  void reassure(const Heartbeat& beat);
  void receive_news(double now);
  std::optional<std::string> judge(double now);

  MPI_Comm comm_;
  CommLog& log_;
  int rank_ = 0;
  double timeout_;
  double period_;
  double next_tick_ = 0;
  double next_beat_ = 0;
  bool reported_ = false;
  std::optional<HeartbeatMonitor> monitor_;
  double suspected_since_ = 0;
  std::array<MPI_Request, monitors> sends_;
  std::array<std::vector<std::byte>, monitors> outgoing_;
  MPI_Request recv_ = MPI_REQUEST_NULL;
  MPI_Request news_ = MPI_REQUEST_NULL;
  double last_news_ = 0;  ///< when a monitor last said that somebody works
  std::vector<std::byte> incoming_;
};

}  // namespace weft
