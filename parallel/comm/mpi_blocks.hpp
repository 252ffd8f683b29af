// All-reduce, reduce-scatter and all-gather block by block. Internal to the MPI transport.
#pragma once
#include "parallel/comm/mpi_collectives.hpp"

namespace weft {

/// A block holds one segment a rank. Flows keep a copy.
struct BlockJob {
  Collective what;
  bool reduces = false;
  bool gathers = false;
  bool ring = false;
  std::int64_t segment = 0;  ///< largest elements of a segment of one block
  std::int64_t blocks = 0;
};

BlockJob make_block_job(const Collective& what, const MpiGroup& group, const MpiTuning& tuning);

/// Blocks first, first + stride, …
Flow block_flow(Lane& lane, BlockJob job, int first, int stride);

}  // namespace weft
