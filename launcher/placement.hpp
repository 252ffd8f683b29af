// Which cores and which GPU each rank of a host gets.
#pragma once
#include <vector>

#include "launcher/environment.hpp"
#include "launcher/topology.hpp"

namespace weft {

struct RankPlacement {
  std::vector<int> cpus;  ///< empty: not bound, there are more ranks than cores
  int cores = 0;
  int gpu = -1;   ///< index into Topology::gpus; -1: none
  int numa = -1;  ///< where its cores are; -1: on several nodes
};

/// One rank a GPU; without GPUs two, or one on a single core.
int default_ranks(const Topology& topology);

/// Places `ranks` ranks of this host: each on `cores_per_rank` cores (0: an equal share) beside its GPU, or spread
/// evenly over the NUMA nodes, on one node as far as they fit. With more ranks than cores nobody is bound. Throws
/// UserError when cores_per_rank asks for more cores than there are.
std::vector<RankPlacement> place_ranks(const Topology& topology, int ranks, int cores_per_rank);

/// Binds this process as `weft launch` asked; does nothing for a process that somebody else started. Call it before
/// there are threads.
void bind_this_rank(const RankEnvironment& rank);

/// How many threads this rank should compute with when the user does not say: OMP_NUM_THREADS, else the cores that it
/// is bound to, else its share of the host's cores; no more than its control group's CPUs.
int default_threads(const RankEnvironment& rank);

}  // namespace weft
