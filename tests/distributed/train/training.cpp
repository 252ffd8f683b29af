#include "tests/distributed/train/training.hpp"

#include <algorithm>
#include <array>
#include <cmath>

#include "launcher/evaluation.hpp"
#include "models/registry.hpp"
#include "parallel/layers/sequence_attention.hpp"
#include "tests/distributed/mpi_test.hpp"

namespace weft::test {
namespace {

TokenSources text() {
  std::string all;
  for (int i = 0; all.size() < 4000; ++i)
    all += fmt::format("line {} of {} says {}; ", i, i * i % 17, i % 3 ? "warp" : "weft");
  return {memory_tokens("text", all)};
}

/// A logical tensor from all ranks' slices of it; `agree` becomes false where ranks hold the same element and differ, or
/// nobody holds one.
std::vector<float> whole(Communicator& ranks, const Slice& slice, const Tensor& local, bool& agree) {
  const std::int64_t count = slice.global_shape.numel();
  std::vector<double> least(static_cast<std::size_t>(count), INFINITY),
      most(static_cast<std::size_t>(count), -INFINITY);
  const float* values = local.view().as<float>();
  slice.for_each_run([&](std::int64_t at, std::int64_t global, std::int64_t run) {
    for (std::int64_t i = 0; i < run; ++i)
      least[static_cast<std::size_t>(global + i)] = most[static_cast<std::size_t>(global + i)] = values[at + i];
  });
  ranks.all_reduce(MutView(least.data(), {count}, DType::f64), {.op = ReduceOp::min}).wait();
  ranks.all_reduce(MutView(most.data(), {count}, DType::f64), {.op = ReduceOp::max}).wait();
  agree = agree && least == most;
  std::vector<float> middle;
  for (std::size_t i = 0; i < least.size(); ++i) middle.push_back(static_cast<float>((least[i] + most[i]) / 2));
  return middle;
}

double norm(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value) * value;
  return std::sqrt(sum);
}

// What is no number is as wrong as can be.
double worse(double a, double b) { return std::isnan(b) ? INFINITY : std::max(a, b); }

RunOptions one_thread() {
  RunOptions run;
  run.threads = 1;
  return run;
}

}  // namespace

LmConfig config(Style style) {
  LmConfig lm;
  lm.layers = 2;
  lm.d_model = 48;
  lm.heads = lm.kv_heads = 6;
  lm.d_ff = 100;
  lm.vocab = 259;
  lm.max_seq = seq;
  lm.dropout = 0.1f;
  if (style == Style::boom) {
    lm.feed_forward = FeedForwardStyle::boom;
    lm.d_ff = 4 * lm.d_model;
  }
  if (style != Style::llama) return lm;
  lm.norm = NormStyle::rms;
  lm.feed_forward = FeedForwardStyle::swiglu;
  lm.positions = PositionStyle::rotary;
  lm.bias = lm.tied = false;
  lm.d_model = 64;
  lm.heads = 8;
  lm.kv_heads = 2;
  lm.d_ff = 90;
  lm.dropout = 0;
  return lm;
}

LmConfig config(const Layout& layout) {
  LmConfig lm = config(layout.style);
  if (layout.mixer == lm.mixer) return lm;
  lm.mixer = layout.mixer;
  lm.positions = PositionStyle::none;
  if (find_mixer(layout.mixer).uses_heads) return lm;
  lm.d_model = 50;
  lm.heads = lm.kv_heads = 1;
  return lm;
}

double learning_rate(Style style) { return style == Style::llama ? 1.5e-3 : 3e-3; }

std::string name_of(const Layout& layout) {
  constexpr std::array<std::string_view, 3> styles = {"gpt2", "llama", "boom"};
  constexpr std::array<std::string_view, 3> recompute = {"kept", "mixers recomputed", "blocks recomputed"};
  return fmt::format("{} {} dp {} sp {} tp {} {} {} rows {} micro-batch {} zero {} {}",
                     styles[static_cast<std::size_t>(layout.style)], layout.mixer, layout.mesh.dp, layout.mesh.sp,
                     layout.mesh.tp, layout.sharding.sp_attention == SequenceAttention::ring ? "ring" : "exchange",
                     layout.sharding.tp_sequence ? "shared" : "whole", layout.sharding.chunk_rows, layout.micro_batch,
                     static_cast<int>(layout.zero), recompute[static_cast<std::size_t>(layout.recompute)]);
}

namespace {

ShardingOptions sharding_of(const Layout& layout) {
  ShardingOptions sharding = layout.sharding;
  sharding.contiguous_tokens = !find_mixer(layout.mixer).uses_heads;
  return sharding;
}

}  // namespace

TrainingRun::TrainingRun(Communicator& ranks, const Layout& layout)
    : engine_(one_thread()), mesh_(ranks, comm_log(), layout.mesh), layout_(layout),
      built_(build_model(config(layout), mesh_, sharding_of(layout))) {
  allocate_parameters(engine_.exec(), built_->store, mesh_, layout.zero, layout.bucket_bytes);
  built_->store.initialize(engine_.exec(), 5);
  optimizer_ = std::make_unique<Optimizer>(AdamWSpec{}, built_->store, engine_.exec());
  SamplerOptions order;
  order.seq = seq;
  order.seed = 5;
  sampler_ = std::make_unique<Sampler>(text(), order);
  options_.batch = batch;
  options_.micro_batch = layout.micro_batch;
  options_.seq = seq;
  options_.seed = 5;
  options_.clip = 1;
  options_.compute = layout.compute;
  options_.sharding = sharding_of(layout);
  options_.buckets = {layout.zero, layout.wire};
  options_.recompute = layout.recompute;
  step_ = std::make_unique<TrainingStep>(Worker{engine_, mesh_, comm_log()}, *built_, *optimizer_, *sampler_, options_);
}

void TrainingRun::validate(std::int64_t sequences) {
  EvaluationOptions options;
  options.micro_batch = sequences;
  options.compute = layout_.compute;
  options.sharding = options_.sharding;
  evaluate({engine_, mesh_, comm_log()}, *built_->model, EvalWindows(text(), seq), options, [] { return false; });
}

MemoryPlan TrainingRun::plan() {
  const MeshSizes sizes{mesh_.size(Axis::pp), mesh_.size(Axis::dp), mesh_.size(Axis::sp), mesh_.size(Axis::tp)};
  return {config(layout_),
          AdamWSpec{},
          options_,
          layout_.bucket_bytes,
          sizes,
          mesh_.world().rank(),
          exec().device().kind,
          engine_.device().facts(),
          exec().threads()};
}

StepResult TrainingRun::step(int number) {
  return step_->run(number, (number - 1) * batch, learning_rate(layout_.style));
}

Training train(Communicator& ranks, const Layout& layout) {
  TrainingRun run(ranks, layout);
  Training result;
  const auto gather = [&](auto&& stored, std::vector<std::vector<float>>& to) {
    for (const Parameter* parameter : run.parameters().all()) {
      const auto place = std::ranges::find(run.parameters().places(), parameter, &ParameterStore::Place::parameter);
      const ParameterStore::Stored part = stored(*place);
      to.push_back(whole(ranks, part.slice, part.data, result.holders_agree));
    }
  };
  const auto value = [&](const ParameterStore::Place& place) { return run.parameters().stored_value(place); };
  gather(value, result.initial);
  for (int i = 1; i <= steps; ++i) {
    const StepResult done = run.step(i);
    result.losses.push_back(done.loss);
    result.norms.push_back(done.grad_norm);
    if (i > 1) continue;
    gather([&](const ParameterStore::Place& place) { return run.parameters().stored_grad(place); }, result.gradients);
  }
  run.settle();
  gather(value, result.last);
  const Tensor& values = run.parameters().flat_values();
  const float* data = values.view().as<float>();
  result.values.assign(data, data + values.numel());
  return result;
}

Difference compare(const Training& a, const Training& b) {
  Difference worst;
  double global = 0;
  for (const auto& gradient : a.gradients) global = std::hypot(global, norm(gradient));
  for (std::size_t i = 0; i < a.gradients.size(); ++i) {
    std::vector<float> apart = a.gradients[i];
    for (std::size_t j = 0; j < apart.size(); ++j) apart[j] -= b.gradients[i][j];
    const double scale = norm(a.gradients[i]);
    const double allowed = scale < 1e-6 * global ? 1e-6 * global : 1e-5 * scale;
    worst.gradient = worse(worst.gradient, norm(apart) / allowed);
  }
  for (int i = 0; i < steps; ++i) {
    const auto at = static_cast<std::size_t>(i);
    worst.loss = worse(worst.loss, std::abs(a.losses[at] - b.losses[at]) / (1e-5 * a.losses[at]));
    worst.grad_norm = worse(worst.grad_norm, std::abs(a.norms[at] - b.norms[at]) / (5e-5 * a.norms[at]));
  }
  return worst;
}

std::vector<Layout> sweep(int ranks) {
  std::vector<Layout> layouts;
  for (const Style style : {Style::gpt2, Style::llama})
    for (int tp = 1; tp <= ranks; ++tp)
      for (int sp = 1; sp <= ranks / tp; ++sp) {
        const LmConfig lm = config(style);
        if (ranks % (tp * sp) != 0 || !heads_fit(lm.heads, lm.kv_heads, tp)) continue;
        bool exchanges = sp > 1;
        for (int rank = 0; rank < tp; ++rank) {
          const HeadShare own = share_heads(lm.heads, lm.kv_heads, tp, rank);
          exchanges = exchanges && heads_fit(own.heads.size(), own.kv_heads.size(), sp);
        }
        for (const bool exchange : {false, true}) {
          if (exchange && !exchanges) continue;
          Layout layout;
          layout.style = style;
          layout.mesh = {1, ranks / (tp * sp), sp, tp};
          layout.sharding.sp_attention = exchange ? SequenceAttention::exchange : SequenceAttention::ring;
          layout.sharding.tp_sequence = layouts.size() % 3 != 1;
          layout.sharding.chunk_rows = layouts.size() % 2 ? 32 : 512;
          layout.sharding.loss_rows = layouts.size() % 2 ? 512 : 37;
          layout.micro_batch = layouts.size() % 2 ? 5 : batch;
          layouts.push_back(layout);
        }
      }
  // Each once more under ZeRO, and data parallelism alone in every stage, with everything else mixed.
  const std::size_t plain = layouts.size();
  for (std::size_t i = 0; i < plain; ++i)
    for (std::size_t stage = 1; stage <= 3; ++stage) {
      Layout layout = layouts[i];
      if (layout.mesh.dp < ranks && stage != 1 + i % 3) continue;
      layout.zero = static_cast<ZeroStage>(stage);
      layout.recompute = static_cast<Recompute>((i + stage) % 3);
      layout.micro_batch = stage == 1 ? batch : 7;
      layout.bucket_bytes = i % 2 ? 1 : 20000;
      layouts.push_back(layout);
    }
  return layouts;
}

}  // namespace weft::test
