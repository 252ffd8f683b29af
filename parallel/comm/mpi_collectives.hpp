// The algorithms: each collective as flows over lanes. Internal to the MPI transport.
//
// Large reductions work on blocks of n segments, one a rank, so that few buffers of cache size are in use at a time.
// Direct: every rank sends each peer its segment, sums what it gets in rank order, and sends the result to all: one
// message delay per half, what shared memory and few ranks like. Ring: segments travel round the ring and are summed on
// the way, so each link carries every byte once (Patarasuk & Yuan 2009), for groups that span hosts or have many ranks.
// Small all-reduces are recursive doubling. bf16 sums are always direct: all-to-all, sum in f32, all-gather.
#pragma once
#include <vector>

#include "parallel/comm/mpi_flow.hpp"
#include "parallel/comm/mpi_tuning.hpp"
#include "parallel/comm/operation.hpp"

namespace weft {

/// One flow a lane; lanes[mpi_check_lane] is not touched. Views must outlive the flows.
std::vector<Flow> make_flows(const Collective& what, const std::vector<std::unique_ptr<Lane>>& lanes,
                             const MpiTuning& tuning);

/// Compares the collective with what the left neighbour started; throws Error that names both.
Flow check_flow(Lane& lane, const Collective& what);

}  // namespace weft
