#include "launcher/lens/lens.hpp"

#include <algorithm>
#include <cmath>
#include <memory>

#include "launcher/lens/trial.hpp"

namespace weft {
namespace {

GradientReach reach_of(Specimen& specimen, const std::string& model, LensShape shape) {
  ExecContext& exec = specimen.engine().exec();
  const std::int64_t seq = shape.seq, width = specimen.width();
  Tensor x = specimen.random(shape, "x");
  const Tensor seed = specimen.random(shape, "dy");
  // All but the last token of each sequence ask for nothing.
  for (std::int64_t b = 0; b < shape.batch && seq > 1; ++b)
    exec.kernels().elementwise.fill(exec, 0.0f, seed.mut().slice(b, b + 1).reshaped({seq, width}).slice(0, seq - 1));
  Tape tape;
  const Tensor y = specimen.forward(x, shape, tape);
  specimen.backward(tape, y, seed);
  const std::vector<float> values = on_host(exec, tape.grad_of(x));
  std::vector<double> squares(static_cast<std::size_t>(seq));
  for (std::int64_t b = 0; b < shape.batch; ++b)
    for (std::int64_t t = 0; t < seq; ++t)
      for (std::int64_t d = 0; d < width; ++d) {
        const double value = values[static_cast<std::size_t>((b * seq + t) * width + d)];
        squares[static_cast<std::size_t>(seq - 1 - t)] += value * value;
      }
  GradientReach reach{model, seq, width, {}};
  const double nearest = std::sqrt(squares.front());
  for (std::size_t distance = 0; distance < squares.size(); ++distance)
    reach.norms.push_back({static_cast<double>(distance), nearest > 0 ? std::sqrt(squares[distance]) / nearest : 0});
  return reach;
}

/// Speed-ups of rows of one model, width and length, whose rows of one rank stand before those of more.
void compare_with_one_rank(std::span<LensRow> rows, std::span<const std::unique_ptr<SpreadGroup>> groups) {
  std::vector<MeasuredPass> forward, backward;
  for (const LensRow& row : rows) {
    if (row.spread.ranks > 1) continue;
    forward.push_back({row.forward_load.work, row.forward_load.span, row.forward_ms / 1e3});
    backward.push_back({row.backward_load.work, row.backward_load.span, row.backward_ms / 1e3});
  }
  const PassSpeed forward_speed = fit_speed(forward), backward_speed = fit_speed(backward);
  const auto predicted = [&](const LensRow& row, const LinkSpeed& link) {
    return predicted_seconds(forward_speed, link, row.forward_load) +
           predicted_seconds(backward_speed, link, row.backward_load);
  };
  const LensRow* one = nullptr;
  for (LensRow& row : rows) {
    if (row.spread.ranks == 1) one = &row;
    if (row.spread.ranks == 1 || !row.misfit.empty()) continue;
    const auto group = std::ranges::find(groups, row.spread, [](const auto& each) { return each->spread(); });
    row.speedup = one->milliseconds() / row.milliseconds();
    row.predicted_speedup = predicted(*one, {}) / predicted(row, (*group)->link());
  }
}

/// One mixer at one width, on each group that it goes over.
class Bench {
 public:
  Bench(const Worker& worker, const LensSpec& spec, std::span<const std::unique_ptr<SpreadGroup>> groups,
        const std::string& model, std::int64_t width)
      : worker_(worker), spec_(spec), groups_(groups), config_(lens_config(model, width)) {
    for (const auto& group : groups)
      specimens_.push_back(group->member() && lens_misfit(config_, group->sizes(), {0, 0}).empty()
                               ? std::make_unique<Specimen>(worker.engine, group->mesh(), config_, spec.compute,
                                                            spec.seed, spec.relay_parts)
                               : nullptr);
  }

  /// A row for each group. Groups take turns, pass by pass, while the other ranks wait. False where a rank wants to stop.
  bool measure(LensShape shape, const std::function<bool()>& stop, std::vector<LensRow>& rows) {
    std::vector<std::unique_ptr<Trial>> trials;
    std::vector<std::string> misfits;
    for (std::size_t i = 0; i < groups_.size(); ++i) {
      misfits.push_back(lens_misfit(config_, groups_[i]->sizes(), shape));
      trials.push_back(specimens_[i] && misfits[i].empty()
                           ? std::make_unique<Trial>(*specimens_[i], *groups_[i], worker_.log, shape)
                           : nullptr);
    }
    // The first pass packs weights and fills caches.
    for (std::int64_t pass = 0; pass <= spec_.repeats; ++pass)
      for (const auto& trial : trials) {
        worker_.log.set_step(++passes_);
        if (trial) trial->run(pass == 0 ? Trial::Timing::none : Trial::Timing::kept);
        worker_.log.set_phase("wait");
        if (any_rank(stop())) return false;
      }
    for (std::size_t i = 0; i < groups_.size(); ++i) {
      LensRow row;
      row.model = config_.mixer;
      row.seq = shape.seq;
      row.d_model = config_.d_model;
      row.batch = shape.batch;
      row.spread = groups_[i]->spread();
      row.misfit = misfits[i];
      if (trials[i]) trials[i]->report(row);
      rows.push_back(std::move(row));
    }
    return true;
  }

  Specimen& on_one_rank() { return *specimens_.front(); }

 private:
  bool any_rank(bool here) const {
    std::int64_t count = here ? 1 : 0;
    worker_.mesh.world().all_reduce(MutView(&count, {1}, DType::i64), {.op = ReduceOp::max}).wait();
    return count > 0;
  }

  const Worker& worker_;
  const LensSpec& spec_;
  std::span<const std::unique_ptr<SpreadGroup>> groups_;
  LmConfig config_;
  std::vector<std::unique_ptr<Specimen>> specimens_;  ///< null on ranks without, and where the mixer does not go
  std::int64_t passes_ = 0;
};

}  // namespace

std::string_view axis_name(const Spread& spread) { return spread.axis ? name_of(*spread.axis) : "none"; }

std::uint64_t LensRow::comm_bytes() const {
  std::uint64_t sum = 0;
  for (const Traffic& one : traffic) sum += one.bytes;
  return sum;
}

double LensRow::bytes_per_token(std::string_view group) const {
  std::uint64_t sum = 0;
  for (const Traffic& one : traffic)
    if (one.group == group) sum += one.bytes;
  return static_cast<double>(sum) / static_cast<double>(seq * batch);
}

std::optional<LensResult> measure_lens(const Worker& worker, const LensSpec& spec, const LensHooks& hooks) {
  LensResult result{worker.engine.description(), spec, {}, {}, {}};
  const bool first_rank = worker.mesh.world().rank() == 0;
  const auto say = [&](std::size_t done, std::size_t total, const std::string& next) {
    if (first_rank && hooks.progress) hooks.progress(done, total, next);
  };
  std::vector<std::unique_ptr<SpreadGroup>> groups;
  groups.push_back(std::make_unique<SpreadGroup>(worker, Spread{}));
  for (const Axis axis : spec.axes)
    for (const int ranks : spec.ranks) groups.push_back(std::make_unique<SpreadGroup>(worker, Spread{axis, ranks}));

  const std::size_t total = spec.models.size() * spec.widths.size() * spec.lengths.size() * spec.batches.size();
  std::size_t done = 0;
  for (const std::string& model : spec.models) {
    for (const std::int64_t width : spec.widths) {
      Bench bench(worker, spec, groups, model, width);
      for (const std::int64_t seq : spec.lengths) {
        const std::size_t first_row = result.rows.size();
        for (const std::int64_t batch : spec.batches) {
          say(done++, total, fmt::format("{}, {} × {} tokens, {} wide", model, batch, seq, width));
          if (!bench.measure({batch, seq}, hooks.stop, result.rows)) return std::nullopt;
        }
        if (first_rank) compare_with_one_rank(std::span(result.rows).subspan(first_row), groups);
      }
      if (width == spec.widths.front() && first_rank)
        result.reaches.push_back(reach_of(bench.on_one_rank(), model, {1, spec.lengths.back()}));
    }
  }
  say(total, total, "");
  if (spec.recall_steps > 0) {
    auto recalls = measure_recall(worker, {spec.models, spec.recall_steps, spec.compute, spec.seed}, hooks);
    if (!recalls) return std::nullopt;
    result.recalls = std::move(*recalls);
  }
  worker.log.set_phase("end");
  worker.mesh.world().barrier().wait();
  return result;
}

double fitted_exponent(const std::vector<PlotPoint>& points) {
  double n = 0, x = 0, y = 0, xx = 0, xy = 0;
  for (const PlotPoint& point : points) {
    if (!(point.x > 0) || !(point.y > 0)) continue;
    const double u = std::log(point.x), v = std::log(point.y);
    ++n;
    x += u;
    y += v;
    xx += u * u;
    xy += u * v;
  }
  const double spread = n * xx - x * x;
  if (n < 2 || !(spread > 0)) return 0;
  const double slope = (n * xy - x * y) / spread;
  // What rounding leaves of a flat line.
  return std::abs(slope) < 1e-9 ? 0 : slope;
}

}  // namespace weft
