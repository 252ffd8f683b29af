// y = concat_h softmax(((q_i + u)·k_j + (q_i + v)·(W_r R_{i−j})_h)/√hd) v_j · W_O with [q|k|v] = x W + b and R the sinusoids of
// the distance (section 3.3 of Dai et al. 2019). u and v are of each layer, as the paper writes it and as its code calls
// untied: a mixer shares no parameters with others. The state holds the keys and values of the last tokens (the paper's
// memory of layer inputs is projected to them) and, between calls without gradients, W_r R.
#include "models/mixers/transformer_xl.hpp"

#include <algorithm>

#include "core/ops/relative_attention.hpp"
#include "models/mixers/attention_heads.hpp"

namespace weft {
namespace {

constexpr double init_deviation = 0.02;

/// The rows of a parameter [d_model, ..] that belong to the heads held here.
Parameter& by_heads(const Builder& build, std::string_view name, Shape shape, Range rows, const TensorGroup& group) {
  Slice slice = Slice::whole(shape);
  if (group.size() > 1) {
    slice.boxes = {{{rows.begin}, {rows.size()}}};
    if (shape.rank() > 1) slice.boxes = {{{rows.begin, 0}, {rows.size(), shape[1]}}};
    slice.placement[static_cast<std::size_t>(Axis::tp)] = Placement::sharded;
  }
  return build.param(name, std::move(slice), Init::normal(init_deviation));
}

class TransformerXl final : public Mixer {
 public:
  TransformerXl(const BuildContext& build, const MixerOptions& options)
      : options_(options), held_(held_heads(build, options)), layout_(head_layout(held_, options)),
        qkv_(build.child("qkv"), options.d_model, projection_width(options), projection_rows(held_, options),
             {options.bias, init_deviation}),
        out_(build.child("out"), options.d_model, options.d_model,
             {held_.heads.begin * layout_.head_dim, held_.heads.end * layout_.head_dim},
             {options.bias, options.out_deviation}) {
    if (options.d_model % 2 != 0)
      fail_user("--d-model: sinusoids of distances need an even width, found {}", options.d_model);
    if (layout_.head_dim > ops::widest_relative_head)
      fail_user("--heads: {} heads of {} give heads {} wide, with relative positions at most {} is supported",
                options.heads, options.d_model, layout_.head_dim, ops::widest_relative_head);
    const TensorGroup group(build);
    const Range rows{held_.heads.begin * layout_.head_dim, held_.heads.end * layout_.head_dim};
    const std::int64_t d = options.d_model;
    distance_ = &by_heads(build.build.child("distance"), "weight", {d, d}, rows, group);
    content_bias_ = &by_heads(build.build, "content_bias", {d}, rows, group);
    place_bias_ = &by_heads(build.build, "place_bias", {d}, rows, group);
    dropout_site_ = build.build.dropout_site();
  }

  MixerTraits traits() const override { return {.causal = options_.causal, .unbounded = options_.causal}; }

  Tensor forward(OpContext& cx, const MixerInput& input, MixerState* state) const override {
    const Tensor qkv = qkv_.forward(cx, input.x);
    const std::int64_t tokens = qkv.shape()[1];
    const ops::AttentionOptions how{options_.causal, options_.dropout, dropout_site_};
    if (!state) {
      const std::int64_t first = options_.causal ? 0 : 1 - tokens;
      const Tensor r = distances(cx, first, tokens - first);
      return out_.forward(cx, ops::relative_attention(cx, qkv, nullptr, term(r, first), layout_, how).y);
    }
    WEFT_CHECK(options_.causal, "two directions carry no state");
    ops::AttentionMemory memory;
    if (state->length > 0) {
      memory.keys_values = state->tensors[0];
      memory.tokens = std::min(state->capacity, memory.keys_values.shape()[1]);
    }
    const Tensor r = distances_after(cx, memory.tokens, tokens, *state);
    const ops::RelativeAttended attended = ops::relative_attention(cx, qkv, &memory, term(r, 0), layout_, how);
    state->tensors[0] = attended.keys_values;
    state->length += tokens;
    return out_.forward(cx, attended.y);
  }

  MixerState make_state(Allocator&, std::int64_t, std::int64_t capacity, DType) const override {
    return {std::vector<Tensor>(2), 0, capacity};
  }

 private:
  /// W_r R of `count` distances from `first` on, for the heads held here.
  Tensor distances(OpContext& cx, std::int64_t first, std::int64_t count) const {
    return ops::linear(cx, ops::sinusoids(cx, first, count, options_.d_model), *distance_, nullptr);
  }
  /// Of all distances that `tokens` more may need. Without gradients the weight stands still while a state is carried, and what
  /// it gives is kept: a token at a time would else pay for all distances. The product has as many rows with gradients, so that
  /// a segment has the same bits with them and without.
  Tensor distances_after(OpContext& cx, std::int64_t remembered, std::int64_t tokens, MixerState& state) const {
    if (cx.recording()) return distances(cx, 0, state.capacity + tokens);
    Tensor& kept = state.tensors[1];
    if (state.length == 0 || !kept.defined() || kept.shape()[0] < remembered + tokens)
      kept = distances(cx, 0, state.capacity + tokens);
    return kept;
  }
  ops::RelativeTerm term(const Tensor& r, std::int64_t first) const { return {r, first, *content_bias_, *place_bias_}; }

  MixerOptions options_;
  HeadShare held_;
  ops::HeadLayout layout_;
  ColumnLinear qkv_;
  RowLinear out_;
  Parameter *distance_, *content_bias_, *place_bias_;
  int dropout_site_;
};

}  // namespace

std::unique_ptr<Mixer> make_transformer_xl(const BuildContext& build, const MixerOptions& options) {
  return std::make_unique<TransformerXl>(build, options);
}

}  // namespace weft
