// How long a pass of a mixer takes by its work, its span and what it sends: W/rate + S·level (Brent 1974), for each collective a
// start and its bytes over the bandwidth, nothing of it hidden, and in a relay the turns in which a rank waits for the others.
#pragma once
#include <span>

namespace weft {

/// One rank's pass as measured.
struct MeasuredPass {
  double work = 0;  ///< FLOPs
  double span = 0;  ///< dependent levels
  double seconds = 0;
};

/// How fast one rank goes through a mixer's pass.
struct PassSpeed {
  double seconds_per_flop = 0;
  double seconds_per_level = 0;
};

/// How fast a group of ranks communicates.
struct LinkSpeed {
  double seconds_per_start = 0;
  double seconds_per_byte = 0;
};

/// The part of a pass that a rank begins only when the rank before it is done (TokenRelay).
struct RelayLoad {
  double parts = 0;  ///< of the batch, one after another; 0: there is no relay
  double work = 0;   ///< of all parts
  double span = 0;   ///< of one part
};

/// What one rank has to do.
struct RankLoad {
  double work = 0;
  double span = 0;    ///< what it waits for in a relay included
  double starts = 0;  ///< of collectives
  double bytes = 0;   ///< sent
  RelayLoad relay = {};
  double ranks = 1;  ///< that the relay goes through
};

/// The speed that comes nearest to one rank's passes, by least squares of the relative errors over speeds that are not negative.
/// Passes whose work over span is all the same cannot tell the two apart: then all time goes to the work.
PassSpeed fit_speed(std::span<const MeasuredPass> passes);

/// Of M parts over P ranks each rank is busy M of M + P − 1 turns; each part has its levels.
double predicted_seconds(const PassSpeed& speed, const LinkSpeed& link, const RankLoad& load);

}  // namespace weft
