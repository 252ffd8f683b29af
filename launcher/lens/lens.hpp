// What sequence mixers cost side by side, on one rank and spread over ranks: work and span from the tape's ledger, measured
// time beside the predicted one, memory, bytes between ranks, and how far gradients reach.
#pragma once
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "core/base/dtype.hpp"
#include "core/tensor/slice.hpp"
#include "launcher/lens/prediction.hpp"
#include "launcher/lens/recall.hpp"
#include "launcher/plot.hpp"
#include "launcher/session.hpp"

namespace weft {

struct LensSpec {
  std::vector<std::string> models;       ///< mixers of the registry
  std::vector<std::int64_t> lengths;     ///< tokens of a sequence, ascending
  std::vector<std::int64_t> widths;      ///< d_model, ascending
  std::vector<std::int64_t> batches{1};  ///< sequences, ascending
  std::vector<Axis> axes;                ///< over which ranks are spread: dp, sp, tp
  std::vector<int> ranks;                ///< numbers of them above 1, ascending, up to those of the world
  std::int64_t relay_parts = 0;          ///< of a batch, where a recurrence goes from rank to rank; 0: chosen
  std::int64_t repeats = 3;              ///< timed passes of each spread, in turns; the median counts
  std::int64_t recall_steps = 0;         ///< training steps of the recall task; 0: it is left out
  DType compute = DType::f32;
  std::uint64_t seed = 1;
};

/// Ranks along one axis of the mesh; one rank has none.
struct Spread {
  std::optional<Axis> axis;
  int ranks = 1;
  bool operator==(const Spread&) const = default;
};

/// "sp", or "none" for one rank.
std::string_view axis_name(const Spread& spread);

/// One pass: FLOPs, and dependent levels as executed and at least (core/kernels/slot.hpp).
struct PassCost {
  double work = 0, span = 0, span_min = 0;
};

/// What all ranks sent in one kind of collective in one pass, by the communication ledger.
struct Traffic {
  std::string group;  ///< the axes along which its ranks differ: "sp", "dp+sp"
  std::string operation;
  bool backward = false;
  std::uint64_t bytes = 0;
};

/// A mixer alone, without norms, feed-forward and head: x [batch, seq, d_model] → y, and back to the gradients of x and of the
/// parameters, these summed over the ranks that hold replicas.
struct LensRow {
  std::string model;
  std::int64_t seq = 0, d_model = 0, batch = 0;
  Spread spread;
  std::string misfit;                      ///< why the mixer does not go over the axis so; then nothing was measured
  PassCost forward, backward;              ///< work of all ranks, span of the rank with the longest
  double forward_ms = 0, backward_ms = 0;  ///< from a common start to the last rank's end, medians
  std::uint64_t activation_bytes = 0;      ///< held from forward to backward, on the rank with most
  RankLoad forward_load, backward_load;    ///< the most that a rank has to do
  std::vector<Traffic> traffic;
  double speedup = 1;            ///< measured, against one rank in the same run
  double predicted_speedup = 1;  ///< by predicted_seconds()

  double work() const { return forward.work + backward.work; }
  double span() const { return forward.span + backward.span; }
  double span_min() const { return forward.span_min + backward.span_min; }
  double milliseconds() const { return forward_ms + backward_ms; }
  /// FLOPs that could run at once: work over span.
  double parallelism() const { return span() > 0 ? work() / span() : 0; }
  /// Sent by all ranks in both passes.
  std::uint64_t comm_bytes() const;
  /// Of these in groups of that name, a token of the batch.
  double bytes_per_token(std::string_view group) const;
};

/// |∂y_t/∂x_s| for the last token t over the distance t − s, by one random cotangent, against that of distance 0, at the
/// initial weights.
struct GradientReach {
  std::string model;
  std::int64_t seq = 0, d_model = 0;
  std::vector<PlotPoint> norms;
};

struct LensResult {
  std::string device;
  LensSpec spec;
  std::vector<LensRow> rows;           ///< by model, width, length, batch, spread
  std::vector<GradientReach> reaches;  ///< one a model, at the smallest width and the greatest length
  std::vector<RecallCurve> recalls;    ///< one a model, where asked for
};

/// Collective over the worker's world. The result is whole on rank 0 alone; nothing where a rank stopped it. Throws UserError
/// for a mixer or a width that cannot be built.
std::optional<LensResult> measure_lens(const Worker& worker, const LensSpec& spec, const LensHooks& hooks);

/// The exponent k of y ~ x^k by least squares over the logarithms; 0 for fewer than two points.
double fitted_exponent(const std::vector<PlotPoint>& points);

}  // namespace weft
