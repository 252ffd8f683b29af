// MPI from start to end. Made in main before anything that communicates, destroyed last. One thread makes every MPI
// call between the two.
#pragma once
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "parallel/comm/communicator.hpp"
#include "parallel/comm/heartbeat.hpp"
#include "parallel/comm/mpi_tuning.hpp"
#include "parallel/comm/test_transport.hpp"

namespace weft {

/// Whether neighbours compare what they started, so that ranks in different collectives get an Error that names both
/// and do not wait for ever. Costs one small message a collective.
enum class CompareCollectives : bool { no, yes };

struct MpiOptions {
  CompareCollectives compare = CompareCollectives::yes;
  /// A rank that is silent, or in a collective that others are missing from, for longer than this fails the run. 0:
  /// never.
  double timeout_seconds = 60;
  double heartbeat_seconds = 0.5;
  /// How long the destructor waits for the other ranks before it leaves without MPI_Finalize.
  double finalize_seconds = 10;
  MpiTuning tuning;
  TestPlan test_plan;
  /// Called once, on the communication thread, after the report was written to standard error; should end the job
  /// through abort_job(). When it returns, collectives in flight end with an Error that carries the report.
  std::function<void(const std::string& report)> on_failure;
};

/// Name and version of the MPI library. Empty: this build has none (WEFT_MPI), and every process is a rank alone.
std::string mpi_library();

class MpiRuntime {
 public:
  /// Initialises MPI. Throws Error if MPI gives no thread support.
  MpiRuntime(int& argc, char**& argv, CommLog& log, MpiOptions options);
  /// Finalises MPI if all ranks arrive within options.finalize_seconds and nothing failed; otherwise leaves MPI as it
  /// is.
  ~MpiRuntime();
  MpiRuntime(const MpiRuntime&) = delete;
  MpiRuntime& operator=(const MpiRuntime&) = delete;

  Communicator& world() { return *world_; }
  int rank() const { return world_->rank(); }
  int size() const { return world_->size(); }
  /// Host and process of each world rank.
  const std::vector<RankPlace>& places() const { return places_; }
  /// Rank among, and number of, the ranks on this host.
  int local_rank() const { return local_rank_; }
  int local_size() const { return local_size_; }

  /// True if every rank calls it within `seconds`; false once, false ever after. Does not wait for collectives in
  /// flight.
  bool all_alive(double seconds);
  /// Has MPI end all ranks with `status`; returns only if MPI does. Callable from any thread.
  void abort_job(int status);
  /// The destructor will not wait for other ranks.
  void mark_failed();

 private:
  class Impl;
  std::unique_ptr<Impl> impl_;
  std::vector<RankPlace> places_;
  int local_rank_ = 0;
  int local_size_ = 1;
  std::unique_ptr<Communicator> world_;
};

}  // namespace weft
