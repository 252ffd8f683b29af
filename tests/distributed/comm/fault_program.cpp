// Ranks that break on purpose; fault_test.cpp starts them: fault_program SCENARIO RANK [PATH].
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include <unistd.h>

#include "core/base/clock.hpp"
#include "parallel/comm/mpi_runtime.hpp"

namespace weft {
namespace {

constexpr double timeout_seconds = 4;
constexpr int failed_status = 3;

void rest(double seconds) { std::this_thread::sleep_for(std::chrono::duration<double>(seconds)); }

struct Job {
  MpiRuntime& mpi;
  CommLog& log;
  int odd_rank;
  std::string path;
  bool odd() const { return mpi.rank() == odd_rank; }
  void all_reduce(std::int64_t count) const {
    std::vector<float> x(static_cast<std::size_t>(count), 1.0f);
    mpi.world().all_reduce(MutView(x.data(), {count}, DType::f32)).wait();
  }
};

int stop(const Job& job) {
  if (job.odd()) ::raise(SIGSTOP);
  job.all_reduce(1000);
  return 0;
}

int stay_away(const Job& job) {
  job.log.set_phase("data");
  if (job.odd()) rest(60);
  job.log.set_phase("forward");
  job.all_reduce(1000);
  return 0;
}

int never_send(const Job& job) {
  float x = 0;
  if (!job.odd() && job.mpi.rank() == 0) job.mpi.world().recv(MutView(&x, {1}, DType::f32), job.odd_rank).wait();
  rest(60);
  return 0;
}

int different_operation(const Job& job) {
  std::vector<float> x(1000), y(1000 * static_cast<std::size_t>(job.mpi.size()));
  const auto n = static_cast<std::int64_t>(y.size());
  if (job.odd())
    job.mpi.world().all_gather(View(x.data(), {1000}, DType::f32), MutView(y.data(), {n}, DType::f32)).wait();
  else
    job.all_reduce(1000);
  return 0;
}

int different_size(const Job& job) {
  job.all_reduce(job.odd() ? 1001 : 1000);
  return 0;
}

int different_large_size(const Job& job) {
  job.all_reduce(job.odd() ? 1000000 : 900000);
  return 0;
}

/// Two megabytes meet sixteen bytes.
int large_against_small(const Job& job) {
  job.all_reduce(job.odd() ? 4 : 524288);
  return 0;
}

/// The same between a pair, where nobody compares.
int large_message_against_small(const Job& job) {
  std::vector<float> x(job.odd() ? 4 : 524288, 1.0f);
  const MutView view(x.data(), {static_cast<std::int64_t>(x.size())}, DType::f32);
  if (job.odd())
    job.mpi.world().recv(view, 1 - job.odd_rank).wait();
  else
    job.mpi.world().send(view, job.odd_rank).wait();
  return 0;
}

/// Ends well: nobody communicates for longer than the time-out, then one rank keeps the others waiting as it said it
/// would.
int slow_but_well(const Job& job) {
  const double begun = seconds_now();
  volatile double work = 0;
  while (seconds_now() - begun < 1.5 * timeout_seconds) work = work + 1;
  job.all_reduce(10);
  job.log.set_phase("checkpoint", 600);
  if (job.odd()) rest(1.5 * timeout_seconds);
  job.all_reduce(10);
  return 0;
}

/// Ends well: one rank comes three time-outs late, and goes from phase to phase meanwhile.
int accumulate(const Job& job) {
  for (int micro_batch = 0; job.odd() && micro_batch < 6; ++micro_batch) {
    job.log.set_phase("forward");
    rest(0.5 * timeout_seconds);
  }
  job.all_reduce(1000);
  return 0;
}

int die(const Job& job) {
  job.log.open_flight_recorder(job.path + std::to_string(job.mpi.rank()), job.mpi.rank(), "here");
  job.log.set_step(5);
  job.all_reduce(10);
  if (!job.odd()) rest(60);
  std::vector<float> x(10);
  const auto never_ends = job.mpi.world().all_reduce(MutView(x.data(), {10}, DType::f32));
  ::kill(::getpid(), SIGKILL);
  return 0;
}

int answer_not(const Job& job) {
  if (job.odd()) rest(8);
  const bool alive = job.mpi.all_alive(2);
  if (!job.odd()) std::printf("rank %d: all alive: %s\n", job.mpi.rank(), alive ? "yes" : "no");
  return 0;
}

/// One rank leaves main early: the runtime's end must not wait for it for ever.
int leave_early(const Job& job) {
  if (job.odd()) fail("rank {} gives up", job.mpi.rank());
  job.all_reduce(1000);
  return 0;
}

int run(int argc, char** argv) {
  const std::string_view scenario = argv[1];
  CommLog log;
  MpiRuntime* runtime = nullptr;
  MpiOptions options;
  options.timeout_seconds = timeout_seconds;
  options.finalize_seconds = 3;
  options.on_failure = [&runtime](const std::string&) { runtime->abort_job(failed_status); };
  MpiRuntime mpi(argc, argv, log, options);
  runtime = &mpi;
  log.set_step(12);
  log.set_phase("forward");
  const Job job{mpi, log, std::atoi(argv[2]), argc > 3 ? argv[3] : ""};
  job.all_reduce(100);
  const std::pair<std::string_view, int (*)(const Job&)> scenarios[] = {{"stop", stop},
                                                                        {"stay-away", stay_away},
                                                                        {"never-send", never_send},
                                                                        {"different-operation", different_operation},
                                                                        {"different-size", different_size},
                                                                        {"different-large-size", different_large_size},
                                                                        {"large-against-small", large_against_small},
                                                                        {"large-message", large_message_against_small},
                                                                        {"slow-but-well", slow_but_well},
                                                                        {"accumulate", accumulate},
                                                                        {"die", die},
                                                                        {"answer-not", answer_not},
                                                                        {"leave-early", leave_early}};
  for (const auto& [name, play] : scenarios) {
    if (name != scenario) continue;
    try {
      return play(job);
    } catch (const Error& error) {
      std::fprintf(stderr, "rank %d: %s\n", mpi.rank(), error.what());
      if (name == "leave-early") return failed_status;
      // Long enough for the other ranks to print what they found.
      rest(2);
      mpi.abort_job(failed_status);
    }
  }
  return 2;
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) { return weft::run(argc, argv); }
