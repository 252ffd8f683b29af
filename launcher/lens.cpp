#include "launcher/lens.hpp"

#include <algorithm>
#include <cmath>
#include <memory>

#include "core/base/clock.hpp"
#include "core/base/philox.hpp"
#include "models/registry.hpp"

namespace weft {
namespace {

constexpr std::int64_t usual_head_width = 64;

/// One mixer with its parameters, on one rank.
class Specimen {
 public:
  Specimen(Engine& engine, const std::string& name, std::int64_t width, const LensSpec& spec)
      : engine_(engine), spec_(spec), width_(width), world_(make_self_communicator(log_, "self", 0, &engine.device())),
        mesh_(*world_, log_, {}) {
    MixerOptions options;
    options.d_model = width;
    options.heads = std::max<std::int64_t>(1, width / usual_head_width);
    while (width % options.heads != 0) --options.heads;
    options.kv_heads = options.heads;
    mixer_ = find_mixer(name).make(BuildContext{Builder(store_), mesh_}, options);
    ExecContext& exec = engine.exec();
    store_.allocate_values(exec);
    store_.allocate_grads(exec);
    store_.initialize(exec, spec.seed);
  }

  Tensor random(std::int64_t seq, std::string_view what) {
    ExecContext& exec = engine_.exec();
    const Shape shape{spec_.batch, seq, width_};
    const PhiloxKey key = philox_key(spec_.seed, what);
    std::vector<float> values(static_cast<std::size_t>(shape.numel()));
    for (std::size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(normal(key, i));
    const Tensor wide = Tensor::empty(exec.memory(), shape, DType::f32, MemoryUse::workspace);
    exec.kernels().transfer.upload(exec, View(values.data(), shape, DType::f32), wide.mut());
    Tensor made = Tensor::empty(exec.memory(), shape, spec_.compute, MemoryUse::workspace);
    exec.kernels().elementwise.copy(exec, wide.view(), made.mut());
    return made;
  }

  /// Records the forward pass of `x`, which the tape then watches.
  Tensor forward(Tensor& x, Tape& tape) {
    const std::int64_t seq = x.shape()[1];
    store_.begin_step();
    tape.begin(MicroBatch::last);
    tape.watch(x);
    OpContext cx{engine_.exec(), &tape, spec_.compute, {}, nullptr};
    cx.tokens = {0, seq, seq, {0, 0}, seq};
    return mixer_->forward(cx, {x}, nullptr);
  }

  Engine& engine() { return engine_; }

 private:
  Engine& engine_;
  const LensSpec& spec_;
  std::int64_t width_;
  CommLog log_;
  std::unique_ptr<Communicator> world_;
  Mesh mesh_;
  ParameterStore store_;
  std::unique_ptr<Mixer> mixer_;
};

PassCost cost_of(const Tape& tape, Pass pass) {
  const CostLedger::Totals& totals = tape.ledger().totals(pass);
  return {totals.flops, totals.span, totals.span_min};
}

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

LensRow measure(Specimen& specimen, const LensSpec& spec, LensRow row) {
  Engine& engine = specimen.engine();
  Device& device = engine.device();
  Tensor x = specimen.random(row.seq, "x");
  const Tensor seed = specimen.random(row.seq, "dy");
  const auto live = [&] {
    const MemoryStats stats = engine.memory().stats();
    return stats.live[static_cast<std::size_t>(MemoryUse::activation)];
  };
  std::vector<double> forward, backward;
  // The first pass packs weights and fills caches.
  for (std::int64_t pass = 0; pass <= spec.repeats; ++pass) {
    Tape tape;
    const std::uint64_t before = live();
    synchronize(device);
    const double begin = seconds_now();
    const Tensor y = specimen.forward(x, tape);
    synchronize(device);
    const double middle = seconds_now();
    row.activation_bytes = live() - before;
    row.forward = cost_of(tape, Pass::forward);
    tape.backward(engine.exec(), y, seed);
    synchronize(device);
    row.backward = cost_of(tape, Pass::backward);
    if (pass == 0) continue;
    forward.push_back((middle - begin) * 1e3);
    backward.push_back((seconds_now() - middle) * 1e3);
  }
  row.forward_ms = median(forward);
  row.backward_ms = median(backward);
  return row;
}

GradientReach reach_of(Specimen& specimen, const LensSpec& spec, GradientReach reach) {
  ExecContext& exec = specimen.engine().exec();
  const std::int64_t seq = reach.seq, width = reach.d_model;
  Tensor x = specimen.random(seq, "x");
  const Tensor seed = specimen.random(seq, "dy");
  // All but the last token of each sequence ask for nothing.
  for (std::int64_t b = 0; b < spec.batch && seq > 1; ++b)
    exec.kernels().elementwise.fill(exec, 0.0f, seed.mut().slice(b, b + 1).reshaped({seq, width}).slice(0, seq - 1));
  Tape tape;
  const Tensor y = specimen.forward(x, tape);
  tape.backward(exec, y, seed);
  const Tensor dx = tape.grad_of(x);
  const Tensor wide = Tensor::empty(exec.memory(), dx.shape(), DType::f32, MemoryUse::workspace);
  exec.kernels().elementwise.copy(exec, dx.view(), wide.mut());
  std::vector<float> values(static_cast<std::size_t>(wide.numel()));
  exec.kernels().transfer.download(exec, wide.view(), MutView(values.data(), wide.shape(), DType::f32));
  std::vector<double> squares(static_cast<std::size_t>(seq));
  for (std::int64_t b = 0; b < spec.batch; ++b)
    for (std::int64_t t = 0; t < seq; ++t)
      for (std::int64_t d = 0; d < width; ++d) {
        const double value = values[static_cast<std::size_t>((b * seq + t) * width + d)];
        squares[static_cast<std::size_t>(seq - 1 - t)] += value * value;
      }
  const double nearest = std::sqrt(squares.front());
  for (std::size_t distance = 0; distance < squares.size(); ++distance)
    reach.norms.push_back({static_cast<double>(distance), nearest > 0 ? std::sqrt(squares[distance]) / nearest : 0});
  return reach;
}

}  // namespace

LensResult measure_lens(Engine& engine, const LensSpec& spec,
                        const std::function<void(std::size_t, std::size_t, const std::string&)>& progress) {
  LensResult result{engine.description(), spec, {}, {}};
  const std::size_t total = spec.models.size() * spec.widths.size() * spec.lengths.size();
  for (const std::string& model : spec.models) {
    for (const std::int64_t width : spec.widths) {
      Specimen specimen(engine, model, width, spec);
      for (const std::int64_t seq : spec.lengths) {
        progress(result.rows.size(), total, fmt::format("{}, {} tokens, {} wide", model, seq, width));
        LensRow row;
        row.model = model;
        row.seq = seq;
        row.d_model = width;
        row.batch = spec.batch;
        result.rows.push_back(measure(specimen, spec, row));
      }
      if (width == spec.widths.front())
        result.reaches.push_back(reach_of(specimen, spec, {model, spec.lengths.back(), width, {}}));
    }
  }
  progress(total, total, "");
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
