#include "parallel/comm/mpi_heart.hpp"

#include <algorithm>

#include "core/base/clock.hpp"
#include "parallel/comm/mpi_check.hpp"

namespace weft {
namespace {

constexpr int heartbeat_tag = 0;
constexpr int news_tag = 1;
constexpr double monitor_tick_seconds = 0.1;
/// How much longer the second monitor and every other rank wait for the first to report.
constexpr double second_monitor_grace_seconds = 2;
constexpr double own_report_factor = 2;

}  // namespace

MpiHeart::MpiHeart(MPI_Comm comm, CommLog& log, std::vector<RankPlace> places, double timeout_seconds,
                   double period_seconds)
    : comm_(comm), log_(log), timeout_(timeout_seconds), period_(period_seconds) {
  check_mpi(MPI_Comm_rank(comm, &rank_), "MPI_Comm_rank");
  sends_.fill(MPI_REQUEST_NULL);
  if (rank_ >= monitors || places.size() < 2) return;
  incoming_.resize(largest_heartbeat(static_cast<int>(places.size())));
  monitor_.emplace(std::move(places), timeout_seconds, seconds_now());
  receive(seconds_now());
}

MpiHeart::~MpiHeart() {
  for (MPI_Request* request : {&recv_, &news_}) {
    if (*request == MPI_REQUEST_NULL) continue;
    MPI_Cancel(request);
    MPI_Wait(request, MPI_STATUS_IGNORE);
  }
  for (std::size_t monitor = 0; monitor < monitors; ++monitor) {
    int sent = 0;
    MPI_Test(&sends_[monitor], &sent, MPI_STATUS_IGNORE);
    if (sent) continue;
    MPI_Request_free(&sends_[monitor]);
    // MPI may still read it.
    new std::vector<std::byte>(std::move(outgoing_[monitor]));
  }
}

std::optional<std::string> MpiHeart::tick(double now) {
  if (now < next_tick_) return std::nullopt;
  next_tick_ = now + (monitor_ ? std::min(monitor_tick_seconds, period_) : period_);
  if (now >= next_beat_) {
    next_beat_ = now + period_;
    log_.beat();
    send(make_heartbeat(rank_, log_.activity(), now));
  }
  if (monitor_) receive(now);
  receive_news(now);
  if (timeout_ <= 0 || reported_) return std::nullopt;
  auto report = judge(now);
  reported_ = report.has_value();
  return report;
}

void MpiHeart::send(const Heartbeat& beat) {
  if (monitor_) monitor_->observe(beat, seconds_now());
  int size = 0;
  check_mpi(MPI_Comm_size(comm_, &size), "MPI_Comm_size");
  for (int monitor = 0; monitor < std::min(monitors, size); ++monitor) {
    if (monitor == rank_) continue;
    auto& request = sends_[static_cast<std::size_t>(monitor)];
    int free = 1;
    check_mpi(MPI_Test(&request, &free, MPI_STATUS_IGNORE), "MPI_Test");
    // A monitor that is stopped takes nothing; this one message waits for it and no more pile up.
    if (!free) continue;
    auto& bytes = outgoing_[static_cast<std::size_t>(monitor)];
    bytes = encode(beat);
    check_mpi(
        MPI_Isend(bytes.data(), static_cast<int>(bytes.size()), MPI_BYTE, monitor, heartbeat_tag, comm_, &request),
        "MPI_Isend");
  }
}

void MpiHeart::receive(double now) {
  while (true) {
    if (recv_ != MPI_REQUEST_NULL) {
      int arrived = 0;
      MPI_Status status;
      check_mpi(MPI_Test(&recv_, &arrived, &status), "MPI_Test");
      if (!arrived) return;
      int length = 0;
      check_mpi(MPI_Get_count(&status, MPI_BYTE, &length), "MPI_Get_count");
      const Heartbeat beat = decode_heartbeat({incoming_.data(), static_cast<std::size_t>(length)});
      monitor_->observe(beat, now);
      reassure(beat);
    }
    check_mpi(MPI_Irecv(incoming_.data(), static_cast<int>(incoming_.size()), MPI_BYTE, MPI_ANY_SOURCE, heartbeat_tag,
                        comm_, &recv_),
              "MPI_Irecv");
  }
}

void MpiHeart::reassure(const Heartbeat& beat) {
  if (!monitor_->somebody_works() || !beat.in_collective || beat.stalled_seconds <= timeout_) return;
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Isend(nullptr, 0, MPI_BYTE, beat.rank, news_tag, comm_, &request), "MPI_Isend");
  check_mpi(MPI_Request_free(&request), "MPI_Request_free");
}

void MpiHeart::receive_news(double now) {
  while (true) {
    if (news_ != MPI_REQUEST_NULL) {
      int arrived = 0;
      check_mpi(MPI_Test(&news_, &arrived, MPI_STATUS_IGNORE), "MPI_Test");
      if (!arrived) return;
      last_news_ = now;
    }
    check_mpi(MPI_Irecv(nullptr, 0, MPI_BYTE, MPI_ANY_SOURCE, news_tag, comm_, &news_), "MPI_Irecv");
  }
}

std::optional<std::string> MpiHeart::judge(double now) {
  if (monitor_) {
    auto report = monitor_->check(now);
    if (monitor_->somebody_works()) last_news_ = now;
    if (!report) {
      suspected_since_ = 0;
    } else {
      if (suspected_since_ == 0) suspected_since_ = now;
      const bool first_monitor_speaks = rank_ != 0 && monitor_->silence(0, now) <= timeout_;
      if (!first_monitor_speaks || now - suspected_since_ > second_monitor_grace_seconds) return report;
    }
  }
  const Heartbeat own = make_heartbeat(rank_, log_.activity(), now);
  const bool excused = own.phase_seconds < own.phase_allowed || (last_news_ > 0 && now - last_news_ <= timeout_);
  if (!excused && own.in_collective &&
      own.stalled_seconds > own_report_factor * timeout_ + second_monitor_grace_seconds)
    return fmt::format("rank {}: {} #{} of {} ({} bytes) has not moved for {:.1f} s (step {}, {})", rank_,
                       name_of(own.kind), own.sequence, own.group, own.bytes, own.stalled_seconds, own.step, own.phase);
  return std::nullopt;
}

}  // namespace weft
