#include "launcher/lens/prediction.hpp"

namespace weft {

PassSpeed fit_speed(std::span<const MeasuredPass> passes) {
  // a·w + l·s ≈ 1 with w = work/seconds and s = span/seconds of each pass.
  double ww = 0, ws = 0, ss = 0, w = 0, s = 0;
  for (const MeasuredPass& pass : passes) {
    if (!(pass.seconds > 0)) continue;
    const double work = pass.work / pass.seconds, span = pass.span / pass.seconds;
    ww += work * work;
    ws += work * span;
    ss += span * span;
    w += work;
    s += span;
  }
  // What rounding leaves of parallel columns.
  constexpr double parallel = 1e-9;
  const double determinant = ww * ss - ws * ws;
  const PassSpeed work_alone{ww > 0 ? w / ww : 0, 0}, span_alone{0, ss > 0 ? s / ss : 0};
  if (!(ww > 0)) return span_alone;
  if (determinant <= parallel * ww * ss) return work_alone;
  const PassSpeed both{(w * ss - s * ws) / determinant, (s * ww - w * ws) / determinant};
  if (both.seconds_per_flop < 0) return span_alone;
  if (both.seconds_per_level < 0) return work_alone;
  return both;
}

double predicted_seconds(const PassSpeed& speed, const LinkSpeed& link, const RankLoad& load) {
  double seconds = speed.seconds_per_flop * load.work + speed.seconds_per_level * load.span +
                   link.seconds_per_start * load.starts + link.seconds_per_byte * load.bytes;
  if (const RelayLoad& relay = load.relay; relay.parts > 0)
    seconds += speed.seconds_per_level * (relay.parts - 1) * relay.span +
               speed.seconds_per_flop * (load.ranks - 1) * relay.work / relay.parts;
  return seconds;
}

}  // namespace weft
