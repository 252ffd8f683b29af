#include "launcher/placement.hpp"

#include <gmock/gmock.h>

#include <filesystem>
#include <fstream>
#include <set>

#include "core/base/error.hpp"

namespace weft {
namespace {

using testing::ElementsAre;
using testing::IsEmpty;

// `nodes` NUMA nodes of `cores` cores with two hardware threads each; CPU c and c + 100 are one core.
Topology machine(int nodes, int cores, std::vector<int> gpu_nodes = {}) {
  Topology topology;
  topology.numa_nodes = nodes;
  for (int node = 0; node < nodes; ++node)
    for (int c = 0; c < cores; ++c) topology.cores.push_back({{node * cores + c, node * cores + c + 100}, node});
  topology.machine_cores = nodes * cores;
  for (const int node : gpu_nodes) topology.gpus.push_back({"gpu", node});
  return topology;
}

TEST(RankPlacement, SharesCoresEquallyAndNeverTwice) {
  for (const int ranks : {1, 2, 3, 4, 7, 8}) {
    const auto placements = place_ranks(machine(2, 4), ranks, 0);
    std::set<int> seen;
    for (const RankPlacement& placement : placements) {
      EXPECT_EQ(placement.cores, 8 / ranks);
      EXPECT_EQ(placement.cpus.size(), 2u * static_cast<std::size_t>(placement.cores));
      for (const int cpu : placement.cpus) EXPECT_TRUE(seen.insert(cpu).second) << ranks << " ranks share CPU " << cpu;
    }
  }
}

TEST(RankPlacement, RanksStayOnOneNodeWhereTheyFit) {
  for (const int ranks : {2, 4, 8})
    for (const RankPlacement& placement : place_ranks(machine(2, 4), ranks, 0)) EXPECT_NE(placement.numa, -1) << ranks;
  EXPECT_EQ(place_ranks(machine(2, 4), 1, 0).front().numa, -1);
}

TEST(RankPlacement, FewCoresARankSpreadOverTheNodes) {
  const auto placements = place_ranks(machine(2, 4), 2, 1);
  EXPECT_EQ(placements[0].numa, 0);
  EXPECT_EQ(placements[1].numa, 1);
  EXPECT_THAT(placements[1].cpus, ElementsAre(4, 104));
}

TEST(RankPlacement, RanksSitBesideTheirGpus) {
  const auto placements = place_ranks(machine(2, 8, {1, 1, 0, 0}), 4, 0);
  EXPECT_EQ(placements[0].gpu, 0);
  EXPECT_EQ(placements[0].numa, 1);
  EXPECT_EQ(placements[2].numa, 0);
  EXPECT_EQ(placements[3].gpu, 3);
  EXPECT_EQ(placements[3].cores, 4);
}

TEST(RankPlacement, GpusOnOneNodeShareItsCoresFirst) {
  const auto placements = place_ranks(machine(2, 2, {0, 0}), 2, 2);
  EXPECT_EQ(placements[0].numa, 0);
  EXPECT_EQ(placements[1].numa, 1);
}

TEST(RankPlacement, MoreRanksThanCoresAreNotBound) {
  for (const RankPlacement& placement : place_ranks(machine(1, 2), 3, 0)) EXPECT_THAT(placement.cpus, IsEmpty());
}

TEST(RankPlacement, RefusesMoreCoresThanThereAre) {
  try {
    place_ranks(machine(1, 8), 3, 3);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_STREQ(error.what(), "--cores-per-rank: found 3, expected at most 2 (3 ranks on 8 cores)");
  }
}

TEST(RankPlacement, DefaultIsOneRankAGpuElseTwo) {
  EXPECT_EQ(default_ranks(machine(2, 4, {0, 0, 1})), 3);
  EXPECT_EQ(default_ranks(machine(2, 4)), 2);
  EXPECT_EQ(default_ranks(machine(1, 1)), 1);
}

TEST(Topology, FindsWhatThisProcessMayUse) {
  const Topology topology = read_topology();
  std::vector<int> cpus;
  for (const CoreInfo& core : topology.cores) cpus.insert(cpus.end(), core.cpus.begin(), core.cpus.end());
  std::ranges::sort(cpus);
  EXPECT_EQ(cpus, current_cpus());
  EXPECT_GT(topology.memory_bytes, 0u);
}

TEST(Topology, FormatsCpusAsRanges) {
  EXPECT_EQ(format_cpus({8, 0, 1, 2, 3}), "0-3,8");
  EXPECT_EQ(format_cpus({}), "");
  EXPECT_EQ(format_cpus({5}), "5");
}

class FakeRoot : public testing::Test {
 protected:
  FakeRoot() : root_(std::filesystem::path(testing::TempDir()) / ("root-" + std::to_string(::getpid()))) {}
  ~FakeRoot() override { std::filesystem::remove_all(root_); }
  void write(const std::string& path, const std::string& text) {
    std::filesystem::create_directories((root_ / path).parent_path());
    std::ofstream(root_ / path) << text;
  }
  std::filesystem::path root_;
};

TEST_F(FakeRoot, GpusAreThoseOfTheDriverInPciOrder) {
  write("proc/driver/nvidia/gpus/0000:81:00.0/information", "");
  write("proc/driver/nvidia/gpus/0000:41:00.0/information", "");
  write("sys/bus/pci/devices/0000:41:00.0/numa_node", "1\n");
  const auto gpus = read_gpus(root_);
  ASSERT_EQ(gpus.size(), 2u);
  EXPECT_EQ(gpus[0].pci, "0000:41:00.0");
  EXPECT_EQ(gpus[0].numa, 1);
  EXPECT_EQ(gpus[1].numa, -1);
}

TEST_F(FakeRoot, ControlGroupsLimitAtEveryLevel) {
  write("proc/self/cgroup", "0::/a/b\n");
  write("sys/fs/cgroup/a/cpu.max", "150000 100000\n");
  write("sys/fs/cgroup/a/b/cpu.max", "max 100000\n");
  write("sys/fs/cgroup/a/b/memory.max", "1073741824\n");
  const GroupLimits limits = read_group_limits(root_);
  EXPECT_DOUBLE_EQ(limits.cpus.value(), 1.5);
  EXPECT_EQ(limits.memory_bytes.value(), std::uint64_t{1} << 30);
}

TEST_F(FakeRoot, OldControlGroupsAreReadToo) {
  write("proc/self/cgroup", "4:cpu,cpuacct:/x\n3:memory:/x\n");
  write("sys/fs/cgroup/cpu/x/cpu.cfs_quota_us", "200000\n");
  write("sys/fs/cgroup/cpu/x/cpu.cfs_period_us", "100000\n");
  write("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "9223372036854771712\n");
  const GroupLimits limits = read_group_limits(root_);
  EXPECT_DOUBLE_EQ(limits.cpus.value(), 2.0);
  EXPECT_FALSE(limits.memory_bytes.has_value());
}

}  // namespace
}  // namespace weft
