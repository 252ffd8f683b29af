#include "launcher/model_setup.hpp"

#include <algorithm>

namespace weft {

LmConfig make_lm_config(const ModelOptions& options, std::int64_t seq, std::int64_t data_vocab) {
  LmConfig config;
  config.mixer = options.mixer;
  config.block = options.block == BlockChoice::plain ? BlockStyle::plain : BlockStyle::pre_norm;
  config.norm = options.norm == NormChoice::layer ? NormStyle::layer : NormStyle::rms;
  config.feed_forward = options.mlp == MlpChoice::gelu     ? FeedForwardStyle::gelu
                        : options.mlp == MlpChoice::swiglu ? FeedForwardStyle::swiglu
                                                           : FeedForwardStyle::boom;
  config.positions = options.positions == PositionChoice::learned  ? PositionStyle::learned
                     : options.positions == PositionChoice::rotary ? PositionStyle::rotary
                                                                   : PositionStyle::none;
  config.bias = options.bias;
  config.tied = options.tied;
  config.layers = options.layers;
  config.d_model = options.d_model;
  config.heads = options.heads;
  config.kv_heads = options.kv_heads;
  config.d_ff = options.d_ff;
  config.attention_every = options.attention_every;
  config.attention_width = options.attention_width;
  config.vocab = options.vocab > 0 ? options.vocab : data_vocab;
  if (config.vocab < 1) fail_user("--vocab: the data does not say how many tokens there are; give --vocab N");
  if (config.vocab < data_vocab)
    fail_user("--vocab: found {}, the data has {} tokens; {} or more would be right", config.vocab, data_vocab,
              data_vocab);
  config.max_seq = seq;
  config.dropout = static_cast<float>(options.dropout);
  config.norm_eps = static_cast<float>(options.norm_eps);
  config.rotary_theta = static_cast<float>(options.rotary_theta);
  return config;
}

OptimizerSpec make_optimizer_spec(const OptimOptions& options) {
  const auto f = [](double value) { return static_cast<float>(value); };
  switch (options.kind) {
    case OptimizerChoice::adamw:
      return AdamWSpec{f(options.beta1), f(options.beta2), f(options.eps), f(options.weight_decay)};
    case OptimizerChoice::radam:
      return RAdamSpec{f(options.beta1), f(options.beta2), f(options.eps), f(options.weight_decay)};
    case OptimizerChoice::sgd: return SgdSpec{f(options.momentum), f(options.weight_decay), false};
  }
  fail("unknown optimizer");
}

Schedule make_schedule(const ScheduleOptions& options, std::int64_t steps) {
  Schedule schedule;
  schedule.kind = options.kind == ScheduleChoice::cosine   ? Schedule::Kind::cosine
                  : options.kind == ScheduleChoice::linear ? Schedule::Kind::linear
                                                           : Schedule::Kind::constant;
  schedule.peak = options.lr;
  schedule.floor = options.min_lr;
  schedule.warmup = options.warmup;
  schedule.total = steps;
  return schedule;
}

void check_layout(const LayoutOptions& layout) {
  if (layout.pp != 1) fail_user("--pp: found {}; this build shards over dp, sp and tp, 1 would be right", layout.pp);
}

std::unique_ptr<BuiltModel> build_model(const LmConfig& config, Mesh& mesh, const ShardingOptions& sharding) {
  auto built = std::make_unique<BuiltModel>();
  built->model = std::make_unique<LanguageModel>(BuildContext{Builder(built->store), mesh, sharding}, config);
  return built;
}

}  // namespace weft
