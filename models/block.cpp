#include "models/block.hpp"

#include <cmath>

#include "core/ops/activation.hpp"
#include "core/ops/channels.hpp"
#include "core/ops/checkpoint.hpp"
#include "models/registry.hpp"
#include "parallel/layers/collective_pairs.hpp"

namespace weft {
namespace {

constexpr double init_deviation = 0.02;

// GPT-2 scales the projections into the residual stream by 1/√(2·layers).
double out_deviation(const LmConfig& config) {
  return init_deviation / std::sqrt(2.0 * static_cast<double>(config.layers));
}

// Whole chunks, whose sum is then a rank's part of the sum over all.
Range held_boom_units(const BuildContext& build, const LmConfig& config) {
  const std::int64_t width = config.d_model, chunks = config.d_ff / width;
  if (config.d_ff % width != 0)
    fail_user("--d-ff: found {}; boom sums chunks of --d-model {}, a multiple would be right", config.d_ff, width);
  const int ranks = build.mesh.size(Axis::tp);
  if (chunks < ranks)
    fail_user("--tp: {} ranks for the {} chunks of --mlp boom; that or less would be right", ranks, chunks);
  const Range held = share_of(chunks, ranks, build.mesh.coordinate(Axis::tp));
  return {held.begin * width, held.end * width};
}

Range held_units(const BuildContext& build, const LmConfig& config) {
  if (config.feed_forward == FeedForwardStyle::boom) return held_boom_units(build, config);
  const int ranks = build.mesh.size(Axis::tp);
  if (config.d_ff < ranks) fail_user("--tp: {} ranks for --d-ff {}; that or less would be right", ranks, config.d_ff);
  return share_of(config.d_ff, ranks, build.mesh.coordinate(Axis::tp));
}

NormKind norm_kind(const LmConfig& config) { return config.norm == NormStyle::layer ? NormKind::layer : NormKind::rms; }

MixerOptions mixer_options(const LmConfig& config, std::int64_t layer) {
  MixerOptions options;
  options.d_model = config.d_model;
  options.heads = config.heads;
  options.kv_heads = config.kv_heads;
  options.layer = layer;
  options.attention_every = config.attention_every;
  options.attention_width = config.attention_width;
  options.bias = config.bias;
  options.rotary_theta = config.positions == PositionStyle::rotary ? config.rotary_theta : 0;
  options.dropout = config.dropout;
  options.out_deviation = out_deviation(config);
  return options;
}

bool gated(const LmConfig& config) { return config.feed_forward == FeedForwardStyle::swiglu; }

// [gate|up], or up alone.
std::vector<WeightRows> up_rows(const BuildContext& build, const LmConfig& config) {
  const Range held = held_units(build, config);
  if (!gated(config)) return {{held}};
  return {{held}, {{config.d_ff + held.begin, config.d_ff + held.end}}};
}

std::unique_ptr<Mixer> make_mixer(const BuildContext& build, const LmConfig& config, std::int64_t layer) {
  const MixerEntry& entry = find_mixer(config.mixer);
  const std::string wrong =
      mixer_misfit(entry, build.mesh.size(Axis::sp), build.mesh.size(Axis::tp), build.sharding.tp_sequence);
  if (!wrong.empty()) fail_user("{}", wrong);
  return entry.make(build.child("mixer"), mixer_options(config, layer));
}

}  // namespace

FeedForward::FeedForward(const BuildContext& build, const LmConfig& config, double deviation)
    : style_(config.feed_forward), width_(config.d_model), group_(build),
      up_(build.child(gated(config) ? "gate_up" : "up"), config.d_model, config.d_ff * (gated(config) ? 2 : 1),
          up_rows(build, config), {config.bias, init_deviation}) {
  if (style_ != FeedForwardStyle::boom)
    down_.emplace(build.child("down"), config.d_ff, config.d_model, held_units(build, config),
                  nn::LinearOptions{config.bias, deviation});
}

Tensor FeedForward::forward(OpContext& cx, const Tensor& x) const {
  switch (style_) {
    case FeedForwardStyle::gelu: return down_->forward(cx, up_.forward(cx, x, Epilogue::gelu));
    case FeedForwardStyle::swiglu: return down_->forward(cx, ops::swiglu(cx, up_.forward(cx, x)));
    case FeedForwardStyle::boom:
      return sum_forward_gather_backward(cx, group_, ops::boom(cx, up_.forward(cx, x), width_));
  }
  fail("unknown feed-forward layer");
}

Block::Block(const BuildContext& build, const LmConfig& config, std::int64_t layer) {
  const bool plain = config.block == BlockStyle::plain;
  const Slice stream = TensorGroup(build).stream_slice({config.d_model});
  const auto norm = [&](std::string_view name) {
    return nn::Norm(build.build.child(name), norm_kind(config), stream, config.norm_eps);
  };
  if (!plain) norm1_.emplace(norm("norm1"));
  mixer_ = make_mixer(build, config, layer);
  if (plain) return;
  norm2_.emplace(norm("norm2"));
  feed_forward_.emplace(build.child("ffn"), config, out_deviation(config));
  mixer_dropout_ = {config.dropout, build.build.dropout_site()};
  feed_forward_dropout_ = {config.dropout, build.build.dropout_site()};
}

ResidualStream Block::forward(OpContext& cx, const ResidualStream& in, MixerState* state) const {
  if (cx.recompute != Recompute::block || state) return run(cx, in, state);
  const std::vector<Tensor> out =
      ops::checkpoint(cx, {in.x, in.branch}, [this, dropout = in.dropout](OpContext& again, std::span<const Tensor> x) {
        const ResidualStream made = run(again, {x[0], x[1], dropout}, nullptr);
        return std::vector{made.x, made.branch};
      });
  return {out[0], out[1], feed_forward_dropout_};
}

Tensor Block::mix(OpContext& cx, const Tensor& x, MixerState* state) const {
  if (cx.recompute != Recompute::attention || state) return mixer_->forward(cx, {x}, state);
  return ops::checkpoint(cx, {x}, [this](OpContext& again, std::span<const Tensor> in) {
    return std::vector{mixer_->forward(again, {in[0]}, nullptr)};
  })[0];
}

ResidualStream Block::run(OpContext& cx, const ResidualStream& in, MixerState* state) const {
  if (!feed_forward_) return {mix(cx, in.x, state), {}, {}};
  OpContext stream = cx.on_stream();
  const ops::Normed first = norm1_->forward(stream, in.x, in.branch, in.dropout);
  const Tensor mixed = mix(cx, first.y, state);
  const ops::Normed second = norm2_->forward(stream, first.sum, mixed, mixer_dropout_);
  return {second.sum, feed_forward_->forward(cx, second.y), feed_forward_dropout_};
}

}  // namespace weft
