#include "launcher/start_report.hpp"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <thread>

#include <gmock/gmock.h>

namespace weft {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::Field;
using testing::HasSubstr;
using testing::Not;

RankEnvironment rank_of(int rank, int size) {
  RankEnvironment self;
  self.starter = "mpirun";
  self.rank_variable = "OMPI_COMM_WORLD_RANK";
  self.rank = rank;
  self.size = size;
  return self;
}

TEST(StartReport, NamesRanksThatAreStoppedOrHaveNotComeToMpi) {
  const std::vector<StartingRank> ranks = {{0, 10, 'S', true}, {1, 11, 'T', true}, {2, 12, 'S', false}, {3, 13, 'R', true}};
  EXPECT_THAT(start_report(rank_of(0, 8), "node7", ranks),
              AllOf(HasSubstr("rank 1 (host node7, pid 11) is stopped"),
                    HasSubstr("rank 2 (host node7, pid 12) has not come to the start of MPI"), Not(HasSubstr("rank 0")),
                    Not(HasSubstr("rank 3"))));
}

TEST(StartReport, PointsAtOtherHostsWhereAllOfThisOneAreThere) {
  const std::vector<StartingRank> ranks = {{0, 10, 'S', true}, {1, 11, 'S', true}};
  EXPECT_EQ(start_report(rank_of(0, 8), "a", ranks),
            "ranks 0-1 of host a are there; of the other 6 some are stopped, dead or cut off");
  EXPECT_THAT(start_report(rank_of(0, 2), "a", ranks), HasSubstr("all 2 wait"));
}

TEST(StartReport, IsGivenOnceAHost) {
  const std::vector<StartingRank> stopped = {{4, 10, 'T', true}, {5, 11, 'S', true}, {6, 12, 'S', true}};
  EXPECT_TRUE(speaks_for_host(rank_of(5, 8), stopped));
  EXPECT_FALSE(speaks_for_host(rank_of(6, 8), stopped));
  const std::vector<StartingRank> good = {{4, 10, 'S', true}, {5, 11, 'S', true}};
  EXPECT_FALSE(speaks_for_host(rank_of(4, 8), good));
  const std::vector<StartingRank> first = {{0, 10, 'S', true}, {1, 11, 'S', true}};
  EXPECT_TRUE(speaks_for_host(rank_of(0, 8), first));
  EXPECT_FALSE(speaks_for_host(rank_of(1, 8), first));
}

// A process that was started with these variables and does nothing.
class Sleeper {
 public:
  Sleeper(const char* rank, const char* job) : pid_(::fork()) {
    if (pid_ != 0) return;
    ::setenv("OMPI_COMM_WORLD_RANK", rank, 1);
    ::setenv(job_variable, job, 1);
    ::execlp("sleep", "sleep", "60", nullptr);
    ::_exit(127);
  }
  ~Sleeper() {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, nullptr, 0);
  }
  void stop() const {
    ::kill(pid_, SIGSTOP);
    ::waitpid(pid_, nullptr, WUNTRACED);
  }
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_;
};

TEST(StartingRanks, AreFoundByTheirJobAndSeenToBeStopped) {
  const std::string job = "start-report-" + std::to_string(::getpid());
  const Sleeper first("0", job.c_str()), second("1", job.c_str()), other("2", "another-job");
  ::setenv(job_variable, job.c_str(), 1);
  std::vector<StartingRank> ranks;
  for (int i = 0; i < 1000 && ranks.size() < 2; ++i) {
    ranks = starting_ranks(rank_of(0, 2));
    std::this_thread::yield();
  }
  second.stop();
  ranks = starting_ranks(rank_of(0, 2));
  ::unsetenv(job_variable);
  EXPECT_THAT(ranks, ElementsAre(AllOf(Field(&StartingRank::rank, 0), Field(&StartingRank::pid, first.pid())),
                                 AllOf(Field(&StartingRank::rank, 1), Field(&StartingRank::pid, second.pid()),
                                       Field(&StartingRank::state, 'T'))));
  EXPECT_THAT(start_report(rank_of(0, 2), "a", ranks), HasSubstr("rank 1 (host a, pid"));
}

}  // namespace
}  // namespace weft
