// What mixers cost side by side: work and span from the tape's ledger, measured time, memory, and how far gradients reach.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "core/base/dtype.hpp"
#include "launcher/plot.hpp"
#include "launcher/session.hpp"

namespace weft {

struct LensSpec {
  std::vector<std::string> models;    ///< mixers of the registry
  std::vector<std::int64_t> lengths;  ///< tokens of a sequence, ascending
  std::vector<std::int64_t> widths;   ///< d_model, ascending
  std::int64_t batch = 1;             ///< sequences
  std::int64_t repeats = 3;           ///< timed passes; the median counts
  DType compute = DType::f32;
  std::uint64_t seed = 1;
};

/// One pass: FLOPs, and dependent levels as executed and at least (core/kernels/slot.hpp).
struct PassCost {
  double work = 0, span = 0, span_min = 0;
};

/// A mixer alone, without norms, feed-forward and head: x [batch, seq, d_model] → y, and back.
struct LensRow {
  std::string model;
  std::int64_t seq = 0, d_model = 0, batch = 0;
  PassCost forward, backward;
  double forward_ms = 0, backward_ms = 0;
  std::uint64_t activation_bytes = 0;  ///< held from forward to backward

  double work() const { return forward.work + backward.work; }
  double span() const { return forward.span + backward.span; }
  double span_min() const { return forward.span_min + backward.span_min; }
  /// FLOPs that could run at once: work over span.
  double parallelism() const { return span() > 0 ? work() / span() : 0; }
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
  std::vector<LensRow> rows;           ///< by model, width, length
  std::vector<GradientReach> reaches;  ///< one a model, at the smallest width and the greatest length
};

/// `progress` gets measurements done, measurements in all, and what comes next. Throws UserError for a mixer or a width that
/// cannot be built.
LensResult measure_lens(Engine& engine, const LensSpec& spec,
                        const std::function<void(std::size_t, std::size_t, const std::string&)>& progress);

/// The exponent k of y ~ x^k by least squares over the logarithms; 0 for fewer than two points.
double fitted_exponent(const std::vector<PlotPoint>& points);

}  // namespace weft
