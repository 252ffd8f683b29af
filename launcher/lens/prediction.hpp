// How long a pass of a mixer takes by its work, its span and what it sends: W/rate + S·level (Brent 1974) and for each
// collective a start and its bytes over the bandwidth, nothing of it hidden.
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

/// What one rank has to do.
struct RankLoad {
  double work = 0;
  double span = 0;
  double starts = 0;  ///< of collectives
  double bytes = 0;   ///< sent
};

/// The speed that comes nearest to one rank's passes, by least squares of the relative errors over speeds that are not negative.
/// Passes whose work over span is all the same cannot tell the two apart: then all time goes to the work.
PassSpeed fit_speed(std::span<const MeasuredPass> passes);

double predicted_seconds(const PassSpeed& speed, const LinkSpeed& link, const RankLoad& load);

}  // namespace weft
