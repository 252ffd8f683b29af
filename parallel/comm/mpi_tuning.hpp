// Which algorithm and message sizes the MPI transport uses. Part of what makes results reproducible: the same tuning
// and layout give the same bits.
#pragma once
#include <cstddef>

namespace weft {

struct MpiTuning {
  std::size_t small_bytes = 16 << 10;     ///< all-reduces up to here: recursive doubling
  std::size_t message_bytes = 256 << 10;  ///< of a large collective's message
  int lanes = 2;                          ///< blocks of one collective in flight, 1 to 3
  int local_lanes = 1;                    ///< the same on one host, where more of them only crowd the cache
  int direct_ranks = 8;                   ///< larger groups, and those of 3 or more ranks that span hosts, use the ring
};

}  // namespace weft
