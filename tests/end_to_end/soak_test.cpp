// Many random faults on one run, one after the other: it still ends with the bits of the run that met none.
#include <gmock/gmock.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdlib>
#include <random>
#include <thread>

#include "faults.hpp"

namespace weft::test {
namespace {

using testing::AnyOf;

enum class Fault {
  kill_first_rank,
  kill_second_rank,
  kill_all_ranks,
  kill_mpirun,
  kill_launch,
  freeze_first_rank,
  freeze_second_rank,
  pause_and_stop,
  stop_by_term,
  stop_by_int,
  stop_by_usr1,
  stop_twice,
  stop_one_rank,
  full_disk_and_stop,
  count
};

void cause(Fault fault, const Background& job, const Training& run) {
  const auto ranks = run.ranks();
  const auto signal_rank = [&](int rank, int number) {
    if (ranks.contains(rank)) ::kill(ranks.at(rank), number);
  };
  switch (fault) {
    case Fault::kill_first_rank: return signal_rank(0, SIGKILL);
    case Fault::kill_second_rank: return signal_rank(1, SIGKILL);
    case Fault::kill_all_ranks: signal_rank(0, SIGKILL); return signal_rank(1, SIGKILL);
    case Fault::kill_mpirun:
      if (const auto pid = run.mpirun()) ::kill(*pid, SIGKILL);
      return;
    case Fault::kill_launch: return job.signal(SIGKILL);
    case Fault::freeze_first_rank: return signal_rank(0, SIGSTOP);
    case Fault::freeze_second_rank: return signal_rank(1, SIGSTOP);
    case Fault::pause_and_stop:
      signal_rank(1, SIGSTOP);
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      signal_rank(1, SIGCONT);
      return job.signal(SIGTERM);
    case Fault::stop_by_term: return job.signal(SIGTERM);
    case Fault::stop_by_int: return job.signal(SIGINT);
    case Fault::stop_by_usr1: return job.signal(SIGUSR1);
    case Fault::stop_twice:
      job.signal(SIGTERM);
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      return job.signal(SIGTERM);
    case Fault::stop_one_rank: return signal_rank(1, SIGUSR1);
    case Fault::full_disk_and_stop: {
      const rlimit small = {4096, RLIM_INFINITY};
      for (const auto& [rank, pid] : ranks) ::prlimit(pid, RLIMIT_FSIZE, &small, nullptr);
      return job.signal(SIGTERM);
    }
    case Fault::count: return;
  }
}

TEST(Soak, ThirtyRandomFaultsChangeNoBit) {
  const char* given = std::getenv("WEFT_SOAK_SEED");
  const unsigned seed = given ? static_cast<unsigned>(std::atoi(given)) : 1;
  std::mt19937 random(seed);
  const Training run({"--checkpoint-every", "3", "--valid-every", "20", "--timeout", "3"});
  for (int round = 0; round < 30; ++round) {
    const auto fault = static_cast<Fault>(random() % static_cast<unsigned>(Fault::count));
    SCOPED_TRACE("seed " + std::to_string(seed) + ", round " + std::to_string(round) + ", fault " +
                 std::to_string(static_cast<int>(fault)));
    const std::int64_t start = run.last_checkpoint();
    Background job(run.command(2), run.folder());
    // Somewhere in the start, or somewhere in a step, a validation or a save.
    const bool early = random() % 3 == 0;
    const std::int64_t wanted = start + static_cast<std::int64_t>(random() % 40);
    const auto moment = std::chrono::microseconds(random() % (early ? 1500000 : 20000));
    ASSERT_TRUE(
        wait_until([&] { return !job.running() || ((early || run.last_step() > wanted) && run.ranks().size() == 2); }));
    std::this_thread::sleep_for(moment);
    ASSERT_TRUE(job.running()) << job.err();
    const std::int64_t saved = run.last_checkpoint();
    cause(fault, job, run);
    const Outcome outcome = job.wait(90);
    if (fault == Fault::kill_launch)
      EXPECT_EQ(outcome.status, 128 + SIGKILL);
    else if (fault == Fault::full_disk_and_stop)
      EXPECT_THAT(outcome.status, AnyOf(2, 3, 75)) << outcome.err;  // 2: the folder could not be written from the start
    else
      EXPECT_THAT(outcome.status, AnyOf(3, 75)) << outcome.err;
    ASSERT_TRUE(run.nobody_left());
    ASSERT_GE(run.last_checkpoint(), saved) << outcome.err;
  }
  const std::int64_t end = run.last_checkpoint() + 20;
  const Words more = {"--steps", std::to_string(end), "--checkpoint-every", "0"};
  const Outcome last = run_program(run.command(2, more), 120);
  ASSERT_EQ(last.status, 0) << last.err;
  const Training whole({"--valid-every", "20"});
  ASSERT_EQ(run_program(whole.command(2, more), 120).status, 0);
  expect_same_bits(whole, run, end);
  EXPECT_EQ(whole.valid_losses(), run.valid_losses());
}

}  // namespace
}  // namespace weft::test
