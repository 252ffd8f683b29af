#include "launcher/ranks.hpp"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <csignal>
#include <exception>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "core/kernels/table.hpp"
#include "launcher/environment.hpp"
#include "launcher/placement.hpp"
#include "launcher/processes.hpp"
#include "launcher/signals.hpp"
#include "launcher/start_report.hpp"
#include "launcher/start_watch.hpp"
#include "parallel/comm/agreement.hpp"

namespace weft {
namespace {

// Longer than a slow rank needs to run into the same error, shorter than people's patience and than half a time-out, after
// which the heartbeats would end the job and could not say why.
constexpr double most_agreement_seconds = 5;

// Starting thousands of ranks takes longer than any of their collectives.
constexpr double start_factor = 5;

// The first rank that leaves takes the others with it, and those of other hosts may have more to say.
constexpr double start_grace_seconds = 2;

struct Failure {
  ExitStatus status;
  std::string message;
};

/// In flight after an error of all ranks was said.
struct SaidFailure {
  ExitStatus status;
};

Failure describe(const std::exception_ptr& exception) {
  try {
    std::rethrow_exception(exception);
  } catch (const UserError& error) {
    return {ExitStatus::user_error, error.what()};
  } catch (const std::bad_alloc&) {
    return {ExitStatus::failed, "out of memory"};
  } catch (const std::exception& error) {
    return {ExitStatus::failed, error.what()};
  }
}

// "rank 1 on n0, step 24, backward"
std::string place_text(const MpiRuntime& mpi, const Activity& doing) {
  std::string text = fmt::format("rank {} on {}", mpi.rank(), host_name());
  if (doing.step >= 0) text += fmt::format(", step {}, {}", doing.step, doing.phase);
  return text;
}

[[noreturn]] void end_job(MpiRuntime& mpi, ExitStatus status) {
  mpi.abort_job(static_cast<int>(status));
  ::_exit(static_cast<int>(status));
}

// What may differ between ranks stays out.
std::string fingerprint(Options options) {
  options.run.threads = 0;
  options.run.quiet = false;
  return fmt::format("{}build = {} {:016x}\n", config_text(options), WEFT_VERSION, kernel_abi_hash());
}

}  // namespace

void fail_job(MpiRuntime& mpi, const CommLog& log, std::string_view command, std::string_view message) {
  say_error(command, fmt::format("{}: {}", place_text(mpi, log.activity()), message));
  end_job(mpi, ExitStatus::failed);
}

void say_error(std::string_view command, std::string_view message) {
  const std::string line = fmt::format("weft{}{}: {}\n", command.empty() ? "" : " ", command, message);
  const ssize_t written = ::write(STDERR_FILENO, line.data(), line.size());
  static_cast<void>(written);
}

void say_failure(MpiRuntime& mpi, const CommLog& log, const Options& options) {
  const std::exception_ptr exception = std::current_exception();
  try {
    std::rethrow_exception(exception);
  } catch (const SaidFailure&) {
    throw;
  } catch (...) {
  }
  const Failure failure = describe(exception);
  const std::string place = place_text(mpi, log.activity());
  const double patience = std::min(most_agreement_seconds, options.run.timeout / 2);
  if (mpi.size() == 1 || mpi.all_alive(patience)) {
    if (mpi.rank() == 0) say_error(options.command, failure.message);
    throw SaidFailure{failure.status};
  }
  say_error(options.command, fmt::format("{}: {}", place, failure.message));
  end_job(mpi, failure.status);
}

ExitStatus with_ranks(const Options& options, const std::function<ExitStatus(MpiRuntime&, CommLog&)>& body) {
  const RankEnvironment self = rank_environment();
  if (self.size > 1 && mpi_library().empty()) {
    if (self.rank == 0)
      say_error(options.command,
                fmt::format("found {} ranks of {}, but this build has no MPI: one rank, or a build with "
                            "WEFT_MPI=ON, would be right",
                            self.size, self.starter));
    return ExitStatus::user_error;
  }
  bind_this_rank(self);
  catch_stop_signals();
  // A write beyond the size limit then fails like one to a full disk.
  ::signal(SIGXFSZ, SIG_IGN);
  // Who reads the progress may leave before the run ends.
  ::signal(SIGPIPE, SIG_IGN);
  CommLog log;
  int argc = 0;
  char** argv = nullptr;
  std::atomic<MpiRuntime*> runtime = nullptr;  // the communication thread reads it
  MpiOptions mpi_options;
  mpi_options.timeout_seconds = options.run.timeout;
  if (const auto plan = environment("WEFT_TEST_COMM")) mpi_options.test_plan = parse_test_plan(*plan);
  mpi_options.on_failure = [&runtime](const std::string&) {
    if (MpiRuntime* started = runtime) end_job(*started, ExitStatus::failed);
  };
  const double start_seconds = start_factor * options.run.timeout;
  std::optional<StartWatch> watch(std::in_place, start_seconds, [&] {
    const std::vector<StartingRank> ranks = starting_ranks(self);
    if (speaks_for_host(self, ranks))
      say_error(options.command, fmt::format("rank {}: not all ranks came up within {} s: {}", self.rank, start_seconds,
                                             start_report(self, host_name(), ranks)));
    std::this_thread::sleep_for(std::chrono::duration<double>(start_grace_seconds));
    ::_exit(static_cast<int>(ExitStatus::failed));
  });
  MpiRuntime mpi(argc, argv, log, mpi_options);
  watch.reset();
  runtime = &mpi;
  try {
    check_same_on_all_ranks(mpi.world(), "options", fingerprint(options));
    return body(mpi, log);
  } catch (...) {
    try {
      say_failure(mpi, log, options);
    } catch (const SaidFailure& said) {
      return said.status;
    }
  }
}

}  // namespace weft
