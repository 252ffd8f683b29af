#include <gmock/gmock.h>
#include <sys/wait.h>

#include <csignal>

#include "core/base/error.hpp"
#include "launcher/environment.hpp"
#include "launcher/launch_plan.hpp"
#include "launcher/launch_run.hpp"
#include "launcher/processes.hpp"

namespace weft {
namespace {

using testing::Contains;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;
using testing::Pair;

Surroundings host(int cores) {
  Surroundings around;
  for (int c = 0; c < cores; ++c) around.topology.cores.push_back({{c}, 0});
  around.topology.machine_cores = cores;
  around.job = "weft-1";
  return around;
}

LaunchPlan plan(const Surroundings& around, std::int64_t ranks, std::int64_t cores = 0) {
  LaunchOptions options;
  options.ranks = ranks;
  options.cores_per_rank = cores;
  return plan_launch(options, around, {"weft", "train"});
}

TEST(LaunchPlan, StartsOneBoundRankAShareOfTheCores) {
  const LaunchPlan two = plan(host(8), 2);
  EXPECT_THAT(two.arguments, ElementsAre("mpirun", "-n", "2", "weft", "train"));
  EXPECT_EQ(two.variables.at(launch_variable::cores_per_rank), "4");
  EXPECT_EQ(two.variables.at("OMP_NUM_THREADS"), "4");
  EXPECT_EQ(two.variables.at("OMPI_MCA_hwloc_base_binding_policy"), "none");
  EXPECT_THAT(two.variables, Not(Contains(Pair("OMPI_MCA_mpi_yield_when_idle", testing::_))));
}

TEST(LaunchPlan, DefaultsToTwoRanksAndToOneAGpu) {
  EXPECT_EQ(plan(host(8), 0).ranks, 2);
  Surroundings gpus = host(8);
  gpus.topology.gpus = {{"a", 0}, {"b", 0}, {"c", 0}, {"d", 0}};
  EXPECT_EQ(plan(gpus, 0).ranks, 4);
}

TEST(LaunchPlan, WithoutMpiIsOneRankByItself) {
  Surroundings alone = host(8);
  alone.has_mpi = false;
  alone.variables["SLURM_JOB_NUM_NODES"] = "2";
  const LaunchPlan one = plan(alone, 0);
  EXPECT_EQ(one.ranks, 1);
  EXPECT_THAT(one.arguments, ElementsAre("weft", "train"));
  EXPECT_EQ(one.variables.at("OMP_NUM_THREADS"), "8");
  EXPECT_THROW(plan(alone, 2), UserError);
}

TEST(LaunchPlan, CrowdedRanksYieldAndAreNotBound) {
  const LaunchPlan crowded = plan(host(2), 4);
  EXPECT_EQ(crowded.variables.at("OMPI_MCA_mpi_yield_when_idle"), "1");
  EXPECT_EQ(crowded.variables.at(launch_variable::cores_per_rank), "0");
  EXPECT_EQ(crowded.variables.at("OMP_NUM_THREADS"), "1");
}

TEST(LaunchPlan, LeavesTheUsersSettingsAlone) {
  Surroundings around = host(4);
  around.variables = {{"OMPI_MCA_pml", "ucx"}, {"OMP_NUM_THREADS", "1"}};
  const LaunchPlan kept = plan(around, 2);
  EXPECT_FALSE(kept.variables.contains("OMPI_MCA_pml"));
  EXPECT_FALSE(kept.variables.contains("OMP_NUM_THREADS"));
}

TEST(LaunchPlan, OnlyRootGetsRootsPermission) {
  EXPECT_FALSE(plan(host(2), 2).variables.contains("OMPI_ALLOW_RUN_AS_ROOT"));
  Surroundings root = host(2);
  root.root = true;
  EXPECT_EQ(plan(root, 2).variables.at("OMPI_ALLOW_RUN_AS_ROOT"), "1");
}

TEST(LaunchPlan, UsesSrunOverSeveralNodesWhereItHasPmix) {
  Surroundings slurm = host(4);
  slurm.variables["SLURM_JOB_NUM_NODES"] = "3";
  EXPECT_EQ(plan(slurm, 6).arguments.front(), "mpirun");
  slurm.srun_with_pmix = true;
  const LaunchPlan spread = plan(slurm, 6);
  EXPECT_THAT(spread.arguments, testing::AllOf(Contains("srun"), Contains("--mpi=pmix"), Contains("--ntasks=6")));
  EXPECT_EQ(spread.variables.at(launch_variable::cores_per_rank), launch_variable::equal_share);
  EXPECT_FALSE(spread.variables.contains("OMP_NUM_THREADS"));
  EXPECT_FALSE(spread.local);
  EXPECT_EQ(plan(slurm, 0).ranks, 6);
  EXPECT_EQ(plan(slurm, 6, 1).variables.at(launch_variable::cores_per_rank), "1");
}

TEST(LaunchPlan, BindsUnderSrunUnlessTheUserSaidHow) {
  Surroundings slurm = host(4);
  slurm.srun_with_pmix = true;
  slurm.variables["SLURM_JOB_NUM_NODES"] = "2";
  EXPECT_THAT(plan(slurm, 4).arguments, Contains("--cpu-bind=none"));
  slurm.variables["SLURM_CPU_BIND"] = "cores";
  const LaunchPlan users = plan(slurm, 4);
  EXPECT_THAT(users.arguments, Not(Contains("--cpu-bind=none")));
  EXPECT_EQ(users.variables.at(launch_variable::cores_per_rank), "0");
  // A shell that is a step itself: Slurm has set the variable, and the shell holds the cores.
  slurm.variables["SLURM_STEP_ID"] = "0";
  EXPECT_THAT(plan(slurm, 4).arguments, testing::AllOf(Contains("--cpu-bind=none"), Contains("--overlap")));
}

TEST(RankEnvironment, ReadsSlurmsListOfTasks) {
  EXPECT_EQ(tasks_on_node("4", 0), 4);
  EXPECT_EQ(tasks_on_node("3,1", 0), 3);
  EXPECT_EQ(tasks_on_node("3,1", 1), 1);
  EXPECT_EQ(tasks_on_node("2(x3),1", 2), 2);
  EXPECT_EQ(tasks_on_node("2(x3),1", 3), 1);
  EXPECT_EQ(tasks_on_node("2(x3),1", 4), std::nullopt);
  EXPECT_EQ(tasks_on_node("", 0), std::nullopt);
  EXPECT_EQ(tasks_on_node("many", 0), std::nullopt);
}

TEST(LaunchPlan, HostfileMustBeThereAndNeedsACount) {
  LaunchOptions options;
  options.hostfile = "/no/such/file";
  options.ranks = 2;
  EXPECT_THROW(plan_launch(options, host(2), {"weft"}), UserError);
  options.hostfile = "/proc/self/status";
  options.ranks = 0;
  EXPECT_THROW(plan_launch(options, host(2), {"weft"}), UserError);
  options.ranks = 2;
  const LaunchPlan plan = plan_launch(options, host(2), {"weft"});
  EXPECT_FALSE(plan.local);
  EXPECT_THAT(plan.arguments, Contains(launch_variable::job));
  EXPECT_EQ(plan.variables.at(launch_variable::cores_per_rank), launch_variable::equal_share);
}

int exited(int status) { return status << 8; }

TEST(LaunchStatus, MapsToThePromisedStatuses) {
  EXPECT_EQ(map_status(exited(0)), ExitStatus::done);
  EXPECT_EQ(map_status(exited(2)), ExitStatus::user_error);
  EXPECT_EQ(map_status(exited(3)), ExitStatus::failed);
  EXPECT_EQ(map_status(exited(75)), ExitStatus::stopped);
  EXPECT_EQ(map_status(exited(1)), ExitStatus::failed);
  EXPECT_EQ(map_status(exited(137)), ExitStatus::failed);
  EXPECT_EQ(map_status(SIGKILL), ExitStatus::failed);
}

TEST(LaunchStatus, SaysWhoWasKilledByWhat) {
  EXPECT_EQ(explain_status(exited(137), "mpirun", KilledRank{1, "n0", 9}), "rank 1 on n0 was killed by SIGKILL");
  EXPECT_EQ(explain_status(exited(139), "mpirun", {}), "a rank was killed by SIGSEGV");
  EXPECT_EQ(explain_status(SIGTERM, "mpirun", {}), "mpirun was killed by SIGTERM");
  EXPECT_EQ(explain_status(exited(1), "srun", {}), "srun ended with status 1");
  for (const int said : {0, 2, 3, 75}) EXPECT_EQ(explain_status(exited(said), "mpirun", {}), "");
}

const std::string edge = std::string(74, '-') + "\n";

struct Through {
  std::string text;
  StarterOutput output{[this](std::string_view piece) { text += piece; }};
};

TEST(StarterOutput, ForwardsRanksLinesAndPartsOfLinesAtOnce) {
  Through through;
  through.output.feed("step 1\n\rbar 10%");
  EXPECT_EQ(through.text, "step 1\n\rbar 10%");
  through.output.feed("--- a short rule\n----\n");
  EXPECT_EQ(through.text, "step 1\n\rbar 10%--- a short rule\n----\n");
}

TEST(StarterOutput, ReadsWhoWasKilledAndDropsTheBox) {
  Through through;
  const std::string box =
      edge + "mpirun noticed that process rank 1 with PID 0 on node vm exited on\nsignal 9 (Killed).\n" + edge;
  // Cut anywhere, it reads the same.
  for (std::size_t cut = 1; cut < box.size(); ++cut) {
    Through one;
    one.output.feed("\rbar");
    one.output.feed(box.substr(0, cut));
    one.output.feed(box.substr(cut));
    one.output.feed("after\n");
    one.output.finish();
    ASSERT_TRUE(one.output.killed().has_value()) << cut;
    EXPECT_EQ(one.output.killed()->rank, 1);
    EXPECT_EQ(one.output.killed()->signal, 9);
    EXPECT_EQ(one.text, "\rbarafter\n") << cut;
  }
}

TEST(StarterOutput, KeepsMessagesThatNobodyElseSays) {
  Through through;
  through.output.feed(edge + "There are not enough slots available\n" + edge);
  EXPECT_THAT(through.text, HasSubstr("There are not enough slots available"));
}

TEST(Processes, SeesChildrenAndWhatTheyListenTo) {
  int ready[2];
  ASSERT_EQ(::pipe(ready), 0);
  const pid_t child = ::fork();
  if (child == 0) {
    std::signal(SIGUSR1, [](int) {});
    if (::write(ready[1], "x", 1) != 1) ::_exit(1);
    ::pause();
    ::_exit(0);
  }
  char byte;
  ASSERT_EQ(::read(ready[0], &byte, 1), 1);
  EXPECT_THAT(children_of(::getpid()), Contains(child));
  EXPECT_TRUE(listens_to(child, SIGUSR1));
  EXPECT_FALSE(listens_to(child, SIGUSR2));
  ::kill(child, SIGKILL);
  ::waitpid(child, nullptr, 0);
  EXPECT_THAT(children_of(::getpid()), Not(Contains(child)));
}

}  // namespace
}  // namespace weft
