#include "launcher/lens/recall.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <nlohmann/json.hpp>
#include <numeric>

#include "core/base/philox.hpp"
#include "core/optim/schedule.hpp"
#include "launcher/model_setup.hpp"
#include "launcher/training_step.hpp"
#include "models/registry.hpp"
#include "parallel/comm/text_exchange.hpp"
#include "parallel/zero.hpp"

namespace weft {
namespace {

using nlohmann::json;

// Small enough for minutes on a laptop.
constexpr std::int64_t layers = 2, width = 64, heads = 2, feed_forward = 128;
constexpr std::int64_t sequences = 16, evaluated_batches = 8;
constexpr double peak_rate = 4e-3;
constexpr float most_norm = 1;

/// Numbers of one sequence, in order.
class Draws {
 public:
  Draws(std::uint64_t seed, std::int64_t index) : key_(philox_key(seed, 0x4ec411, static_cast<std::uint64_t>(index))) {}
  std::int64_t below(std::int64_t limit) {
    return static_cast<std::int64_t>(std::uint64_t{philox_word(key_, next_++)} * static_cast<std::uint64_t>(limit) >>
                                     32);
  }

 private:
  PhiloxKey key_;
  std::uint64_t next_ = 0;
};

LmConfig config_of(const std::string& model, const RecallTask& task) {
  LmConfig config;
  config.mixer = model;
  config.positions = find_mixer(model).positions;
  config.vocab = task.vocab();
  config.layers = layers;
  config.d_model = width;
  config.heads = config.kv_heads = heads;
  config.d_ff = feed_forward;
  config.max_seq = task.seq;
  return config;
}

/// One model on this rank alone.
class Pupil {
 public:
  Pupil(const Worker& worker, const RecallSpec& spec, const std::string& model)
      : exec_(worker.engine.exec()), log_(worker.log), spec_(spec), model_(model),
        self_(make_self_communicator(worker.log, "recall", worker.mesh.world().rank(), &worker.engine.device())),
        mesh_(*self_, worker.log, {}), built_(build_model(config_of(model, task_), mesh_)),
        inputs_(exec_, sequences, task_.seq),
        squares_(Tensor::empty(exec_.memory(), {1}, DType::f64, MemoryUse::workspace)) {
    allocate_parameters(exec_, built_->store, mesh_, ZeroStage::none);
    built_->store.initialize(exec_, spec.seed);
    optimizer_.emplace(AdamWSpec{.beta2 = 0.98f, .weight_decay = 0}, built_->store, exec_);
    rate_ = {Schedule::Kind::cosine, peak_rate, peak_rate / 20, std::max<std::int64_t>(1, spec.steps / 10), spec.steps};
  }

  void step(std::int64_t number) {
    log_.set_step(number);
    log_.set_phase("recall");
    Batch batch = task_.batch(spec_.seed, (number - 1) * sequences, sequences);
    const float sum = std::accumulate(batch.weights.begin(), batch.weights.end(), 0.0f);
    for (float& weight : batch.weights) weight /= std::max(1.0f, sum);
    inputs_.fill(exec_, batch);
    built_->store.begin_step();
    tape_.begin(MicroBatch::last);
    OpContext cx = context(&tape_);
    const ops::CrossEntropy loss = built_->model->loss(cx, inputs_.tokens(0, sequences), inputs_.targets(0, sequences));
    tape_.backward(exec_, loss.loss);
    finish_unused(exec_, built_->store.all());
    const View grads = built_->store.flat_grads().view();
    exec_.kernels().elementwise.dot(exec_, grads, grads, Write::overwrite, squares_.mut());
    optimizer_->set_rate(exec_, static_cast<float>(rate_.rate(number)));
    optimizer_->step(exec_, squares_.view(), {}, most_norm);
  }

  /// On sequences behind those of the training.
  RecallCurve examine() {
    RecallCurve curve{model_, built_->store.global_numel(), {}, 0};
    std::vector<double> right(std::bit_width(static_cast<std::uint64_t>(task_.seq))), asked(right.size());
    for (std::int64_t i = 0; i < evaluated_batches; ++i) {
      log_.set_step(spec_.steps + 1 + i);
      std::vector<std::int64_t> distances;
      const Batch batch = task_.batch(spec_.seed, (spec_.steps + i) * sequences, sequences, &distances);
      const std::vector<std::int32_t> answers = answer(batch);
      for (std::size_t at = 0; at < distances.size(); ++at) {
        if (distances[at] == 0) continue;
        const auto bin = static_cast<std::size_t>(std::bit_width(static_cast<std::uint64_t>(distances[at])) - 1);
        ++asked[bin];
        right[bin] += answers[at] == batch.targets[at] ? 1 : 0;
      }
    }
    for (std::size_t bin = 0; bin < asked.size(); ++bin)
      if (asked[bin] > 0)
        curve.accuracy.push_back({std::exp2(static_cast<double>(bin) + 0.5), right[bin] / asked[bin]});
    curve.mean = std::accumulate(right.begin(), right.end(), 0.0) / std::accumulate(asked.begin(), asked.end(), 0.0);
    return curve;
  }

 private:
  OpContext context(Tape* tape) {
    OpContext cx{exec_, tape, spec_.compute, {}, nullptr};
    cx.tokens = {0, task_.seq, task_.seq, {0, 0}, task_.seq};
    return cx;
  }

  std::vector<std::int32_t> answer(const Batch& batch) {
    inputs_.fill(exec_, batch);
    OpContext cx = context(nullptr);
    const Tensor hidden = built_->model->hidden(cx, inputs_.tokens(0, sequences));
    const std::int64_t rows = sequences * task_.seq, vocab = task_.vocab();
    const Tensor logits = built_->model->logits(cx, hidden.reshaped({rows, width}));
    const Tensor wide = Tensor::empty(exec_.memory(), logits.shape(), DType::f32, MemoryUse::workspace);
    exec_.kernels().elementwise.copy(exec_, logits.view(), wide.mut());
    std::vector<float> values(static_cast<std::size_t>(wide.numel()));
    exec_.kernels().transfer.download(exec_, wide.view(), MutView(values.data(), wide.shape(), DType::f32));
    std::vector<std::int32_t> best(static_cast<std::size_t>(rows));
    for (std::int64_t row = 0; row < rows; ++row) {
      const auto begin = values.begin() + row * vocab;
      best[static_cast<std::size_t>(row)] = static_cast<std::int32_t>(std::max_element(begin, begin + vocab) - begin);
    }
    return best;
  }

  ExecContext& exec_;
  CommLog& log_;
  const RecallSpec& spec_;
  std::string model_;
  RecallTask task_;
  std::unique_ptr<Communicator> self_;
  Mesh mesh_;
  std::unique_ptr<BuiltModel> built_;
  DeviceBatch inputs_;
  Tensor squares_;
  std::optional<Optimizer> optimizer_;
  Schedule rate_;
  Tape tape_;
};

std::string text_of(const std::vector<RecallCurve>& curves, bool stopped) {
  json list = json::array();
  for (const RecallCurve& curve : curves) {
    json points = json::array();
    for (const PlotPoint& point : curve.accuracy) points.push_back({point.x, point.y});
    list.push_back({curve.model, curve.parameters, curve.mean, points});
  }
  return json{{"stopped", stopped}, {"curves", list}}.dump();
}

void add_curves(const json& list, std::vector<RecallCurve>& all) {
  for (const json& one : list) {
    RecallCurve curve{one[0], one[1], {}, one[2]};
    for (const json& point : one[3]) curve.accuracy.push_back({point[0], point[1]});
    all.push_back(std::move(curve));
  }
}

}  // namespace

Batch RecallTask::batch(std::uint64_t seed, std::int64_t first, std::int64_t count,
                        std::vector<std::int64_t>* distances) const {
  // Of the tokens after the first saying so many ask.
  constexpr std::int64_t one_question_in = 4;
  Batch batch;
  batch.first = first;
  batch.count = count;
  batch.seq = seq;
  const auto size = static_cast<std::size_t>(count * seq);
  batch.targets.assign(size, -1);
  batch.weights.assign(size, 0);
  batch.tokens.resize(size);
  if (distances) distances->assign(size, 0);
  for (std::int64_t i = 0; i < count; ++i) {
    Draws draws(seed, first + i);
    std::vector<std::int64_t> said_at(static_cast<std::size_t>(keys)), value(said_at.size());
    std::vector<std::int64_t> said(static_cast<std::size_t>(seq), -1);  // the key, by position
    for (std::int64_t key = 0; key < keys; ++key) {
      std::int64_t at = draws.below(seq / 2);
      while (said[static_cast<std::size_t>(at)] >= 0) at = draws.below(seq / 2);
      said[static_cast<std::size_t>(at)] = key;
      said_at[static_cast<std::size_t>(key)] = at;
      value[static_cast<std::size_t>(key)] = draws.below(values);
    }
    std::vector<std::int64_t> known;
    for (std::int64_t at = 0; at < seq; ++at) {
      const auto here = static_cast<std::size_t>(i * seq + at);
      if (const std::int64_t key = said[static_cast<std::size_t>(at)]; key >= 0) {
        batch.tokens[here] = saying(key, value[static_cast<std::size_t>(key)]);
        known.push_back(key);
      } else if (!known.empty() && draws.below(one_question_in) == 0) {
        const std::int64_t asked =
            known[static_cast<std::size_t>(draws.below(static_cast<std::int64_t>(known.size())))];
        batch.tokens[here] = question(asked);
        batch.targets[here] = static_cast<std::int32_t>(value[static_cast<std::size_t>(asked)]);
        batch.weights[here] = 1;
        if (distances) (*distances)[here] = at - said_at[static_cast<std::size_t>(asked)];
      } else {
        batch.tokens[here] = static_cast<std::int32_t>(values + keys * values + keys + draws.below(noise));
      }
    }
  }
  return batch;
}

double recall_by_chance() { return 1 / static_cast<double>(RecallTask{}.values); }

std::optional<std::vector<RecallCurve>> measure_recall(const Worker& worker, const RecallSpec& spec,
                                                       const LensHooks& hooks) {
  Communicator& world = worker.mesh.world();
  const auto ranks = static_cast<std::size_t>(world.size()), rank = static_cast<std::size_t>(world.rank());
  const auto steps = static_cast<std::size_t>(spec.steps);
  const std::size_t own = (spec.models.size() + ranks - 1 - rank) / ranks;
  std::vector<RecallCurve> curves;
  bool stopped = false;
  for (std::size_t i = rank; i < spec.models.size() && !stopped; i += ranks) {
    Pupil pupil(worker, spec, spec.models[i]);
    for (std::size_t step = 1; step <= steps && !stopped; ++step) {
      if (rank == 0 && hooks.progress)
        hooks.progress(i / ranks * steps + step - 1, own * steps, fmt::format("recall, {}", spec.models[i]));
      pupil.step(static_cast<std::int64_t>(step));
      stopped = hooks.stop();
    }
    if (!stopped) curves.push_back(pupil.examine());
  }
  if (rank == 0 && hooks.progress) hooks.progress(own * steps, own * steps, "");
  worker.log.set_phase("wait");
  std::vector<RecallCurve> all;
  for (const std::string& text : all_gather_text(world, text_of(curves, stopped))) {
    const json one = json::parse(text);
    stopped = stopped || one.at("stopped");
    add_curves(one.at("curves"), all);
  }
  if (stopped) return std::nullopt;
  std::ranges::sort(all, {}, [&](const RecallCurve& curve) { return std::ranges::find(spec.models, curve.model); });
  return all;
}

}  // namespace weft
