// The thread that makes all MPI calls of a process: it starts what is submitted, moves it on, urgent collectives first,
// and drives the heartbeat. Internal to the MPI runtime.
#pragma once
#include <mpi.h>

#include <atomic>
#include <condition_variable>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "parallel/comm/comm_log.hpp"
#include "parallel/comm/mpi_collectives.hpp"
#include "parallel/comm/mpi_heart.hpp"

namespace weft {

class MpiEngine {
 public:
  struct Options {
    MpiTuning tuning;
    bool compares = true;  ///< neighbours compare what they started
    std::function<void(const std::string& report)> on_failure;
  };

  /// Starts the thread. `data` carries collectives, `heart` its own communicator.
  MpiEngine(MPI_Comm data, CommLog& log, std::unique_ptr<MpiHeart> heart, Options options);
  ~MpiEngine();
  MpiEngine(const MpiEngine&) = delete;
  MpiEngine& operator=(const MpiEngine&) = delete;

  void submit(std::shared_ptr<Operation> operation, std::shared_ptr<MpiGroup> group);
  /// Ends the thread. False if collectives were still in flight or something had failed: MPI cannot be finalised then.
  bool stop();
  bool failed() const { return failed_.load(); }
  void mark_failed() { failed_.store(true); }
  /// Calls MPI_Abort, on the communication thread if that answers within a moment.
  void abort_job(int status);

  int free_context() const { return free_context_.load(); }
  /// Throws Error when the MPI library has no tags left for `context`.
  void reserve_context(int context);

 private:
  struct Submitted {
    std::shared_ptr<Operation> operation;
    std::shared_ptr<MpiGroup> group;
  };
  /// One flow and the lane that it awaits.
  struct Strand {
    Flow flow;
    Lane* lane = nullptr;
    bool over = false;
  };
  struct Running {
    std::shared_ptr<Operation> operation;
    std::shared_ptr<MpiGroup> group;
    Keep keep;  ///< for messages that outlive a failed operation
    std::vector<std::unique_ptr<Lane>> lanes;
    std::vector<Strand> strands;
    std::exception_ptr error;
    double failed_at = 0;
    bool explained = false;  ///< the neighbours' descriptors were compared
  };
  enum class Moved : bool { no, yes };

  void run();
  void serve();
  void take_submitted();
  void admit();
  void start(Submitted submitted);
  Moved advance_all(double now);
  Moved advance(Running& running, double now);
  bool over(const Running& running, double now) const;
  void finish(std::unique_ptr<Running> running);
  void fail_all(const std::string& report);
  /// Naps or yields until there may be something to do.
  void pause(double now);
  bool awaited() const;

  MPI_Comm data_;
  CommLog& log_;
  std::unique_ptr<MpiHeart> heart_;
  Options options_;
  int highest_tag_ = 32767;
  std::atomic<int> free_context_ = 0;
  std::atomic<bool> failed_ = false;
  std::atomic<int> abort_status_;

  std::mutex mutex_;
  std::condition_variable wake_;
  std::vector<Submitted> submitted_;
  std::atomic<bool> something_submitted_ = false;
  std::atomic<bool> stopping_ = false;

  // Of the communication thread.
  double last_moved_ = 0;
  MessageBoard board_;
  ScratchPool pool_;
  std::deque<Submitted> queued_;
  std::vector<std::unique_ptr<Running>> urgent_, bulk_;
  std::vector<std::unique_ptr<Running>> abandoned_;  ///< failed, with messages that may still arrive
  std::thread thread_;
};

}  // namespace weft
