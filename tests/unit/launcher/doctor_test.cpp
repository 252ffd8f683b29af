#include "launcher/doctor.hpp"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

namespace weft {
namespace {

using testing::Contains;
using testing::Field;
using testing::HasSubstr;
using testing::IsEmpty;

HostFacts healthy(int cores) {
  HostFacts host;
  host.host = "n0";
  for (int c = 0; c < cores; ++c) host.topology.cores.push_back({{c}, 0});
  host.topology.machine_cores = cores;
  host.isa = {"avx512_bf16"};
  host.shared_memory_bytes = std::uint64_t{8} << 30;
  host.starters = {"/usr/bin/mpirun"};
  return host;
}

RankFacts rank(int number, std::vector<int> cpus, int host_cores, int threads) {
  RankFacts facts;
  facts.rank = number;
  facts.host = "n0";
  facts.cores = static_cast<int>(cpus.size());
  facts.cpus = std::move(cpus);
  facts.host_cores = host_cores;
  facts.numa = 0;
  facts.threads = threads;
  return facts;
}

auto says(const std::string& text) { return Contains(Field(&Finding::what, HasSubstr(text))); }

TEST(Doctor, FindsNothingWrongWithWellPlacedRanks) {
  EXPECT_THAT(diagnose(healthy(4), {rank(0, {0, 1}, 4, 2), rank(1, {2, 3}, 4, 2)}), IsEmpty());
  EXPECT_THAT(diagnose(healthy(4), {rank(0, {0, 1, 2, 3}, 4, 4)}), IsEmpty());
}

TEST(Doctor, SeesRanksOnTheSameCores) {
  EXPECT_THAT(diagnose(healthy(4), {rank(0, {0}, 4, 1), rank(1, {0}, 4, 1)}),
              says("all 2 ranks on n0 are bound to CPUs 0"));
  EXPECT_THAT(diagnose(healthy(4), {rank(0, {0, 1}, 4, 1), rank(1, {1, 2}, 4, 1)}),
              says("ranks 0 and 1 on n0 share cores"));
}

TEST(Doctor, RanksOfDifferentHostsDoNotShare) {
  RankFacts other = rank(1, {0}, 4, 1);
  other.host = "n1";
  EXPECT_THAT(diagnose(healthy(4), {rank(0, {0}, 4, 1), other}), IsEmpty());
}

TEST(Doctor, SeesMoreRanksThanCores) {
  std::vector<RankFacts> ranks;
  for (int r = 0; r < 3; ++r) ranks.push_back(rank(r, {0, 1}, 2, 1));
  EXPECT_THAT(diagnose(healthy(2), ranks), says("3 ranks on the 2 cores"));
}

TEST(Doctor, SeesThreadsThatHaveNoCores) {
  EXPECT_THAT(diagnose(healthy(4), {rank(0, {0}, 4, 8)}), says("8 threads on 1 core"));
  EXPECT_THAT(diagnose(healthy(4), {rank(0, {0, 1, 2, 3}, 4, 4), rank(1, {0, 1, 2, 3}, 4, 4)}),
              says("8 threads in all"));
}

TEST(Doctor, SeesRanksAcrossNumaNodesAndAwayFromTheirGpu) {
  RankFacts wide = rank(0, {0, 1}, 4, 2);
  wide.numa_nodes = 2;
  wide.numa = -1;
  EXPECT_THAT(diagnose(healthy(4), {wide, rank(1, {2}, 4, 1)}), says("several NUMA nodes"));
  RankFacts far = rank(0, {0, 1}, 4, 2);
  far.gpu = "0000:41:00.0";
  far.gpu_numa = 1;
  EXPECT_THAT(diagnose(healthy(4), {far}), says("its GPU 0000:41:00.0 on node 1"));
}

TEST(Doctor, SeesWhatIsWrongWithTheHost) {
  HostFacts host = healthy(4);
  host.shared_memory_bytes = std::uint64_t{64} << 20;
  host.governor = "powersave";
  host.limits.cpus = 1.5;
  host.load = 9;
  host.starters.clear();
  host.slurm_job = true;
  host.isa.clear();
  const auto findings = diagnose(host, {rank(0, {0, 1}, 4, 2), rank(1, {2, 3}, 4, 2)});
  for (const char* text : {"/dev/shm", "powersave", "grants 1.5 CPUs", "busy", "no mpirun", "pmix", "bf16"})
    EXPECT_THAT(findings, says(text));
}

TEST(Doctor, RankFactsTravelAsJson) {
  RankFacts first = rank(3, {4, 5}, 8, 2);
  first.gpu = "0000:41:00.0";
  first.network = "mlx5_0";
  EXPECT_EQ(to_json(rank_from_json(to_json(first))), to_json(first));
}

}  // namespace
}  // namespace weft
