// y = concat_h softmax(q_h k_hᵀ/√hd) v_h · W_O with [q|k|v] = x W + b (section 3.2 of Vaswani et al. 2017); H query heads
// share Hkv key-value heads (Ainslie et al. 2023).
#include "models/mixers/attention.hpp"

#include "core/ops/attention.hpp"
#include "parallel/layers/linear.hpp"
#include "parallel/layers/sequence_attention.hpp"

namespace weft {
namespace {

void check(const MixerOptions& options) {
  if (options.heads < 1 || options.d_model % options.heads != 0)
    fail_user("--heads: {} heads do not divide --d-model {}", options.heads, options.d_model);
  if (options.kv_heads < 1 || options.heads % options.kv_heads != 0)
    fail_user("--kv-heads: {} key-value heads do not divide --heads {}", options.kv_heads, options.heads);
  const std::int64_t head_dim = options.d_model / options.heads;
  if (head_dim > ops::widest_head)
    fail_user("--heads: {} heads of {} give heads {} wide, at most {} is supported", options.heads, options.d_model,
              head_dim, ops::widest_head);
  if (options.rotary_theta > 0 && head_dim % 2 != 0)
    fail_user("--heads: rotary positions need an even head width, {} heads of {} give {}", options.heads,
              options.d_model, head_dim);
}

HeadShare held_heads(const BuildContext& build, const MixerOptions& options) {
  check(options);
  const int ranks = build.mesh.size(Axis::tp);
  if (!heads_fit(options.heads, options.kv_heads, ranks))
    fail_user("--tp: {} ranks do not go with {} heads and {} key-value heads; {} would be right", ranks, options.heads,
              options.kv_heads, fitting_tp(options.heads, options.kv_heads));
  return share_heads(options.heads, options.kv_heads, ranks, build.mesh.coordinate(Axis::tp));
}

ops::HeadLayout head_layout(const HeadShare& held, const MixerOptions& options) {
  return {held.heads.size(), held.kv_heads.size(), options.d_model / options.heads, held.heads.begin, options.heads};
}

// The rows of the fused projection [q|k|v].
std::vector<WeightRows> projection_rows(const HeadShare& held, const MixerOptions& options) {
  const std::int64_t hd = options.d_model / options.heads, keys = options.d_model;
  const std::int64_t values = keys + options.kv_heads * hd;
  const Range kv{held.kv_heads.begin * hd, held.kv_heads.end * hd};
  return {{{held.heads.begin * hd, held.heads.end * hd}},
          {{keys + kv.begin, keys + kv.end}, held.copies, held.copy},
          {{values + kv.begin, values + kv.end}, held.copies, held.copy}};
}

std::int64_t projection_width(const MixerOptions& options) {
  return options.d_model + 2 * options.kv_heads * (options.d_model / options.heads);
}

class Attention final : public Mixer {
 public:
  Attention(const BuildContext& build, const MixerOptions& options)
      : options_(options), held_(held_heads(build, options)), layout_(head_layout(held_, options)),
        qkv_(build.child("qkv"), options.d_model, projection_width(options), projection_rows(held_, options),
             {options.bias, 0.02}),
        attention_(build, layout_, options.causal),
        out_(build.child("out"), options.d_model, options.d_model,
             {held_.heads.begin * layout_.head_dim, held_.heads.end * layout_.head_dim},
             {options.bias, options.out_deviation}),
        dropout_site_(build.build.dropout_site()) {}

  MixerTraits traits() const override { return {.causal = options_.causal}; }

  Tensor forward(OpContext& cx, const MixerInput& input, MixerState* state) const override {
    Tensor qkv = qkv_.forward(cx, input.x);
    if (options_.rotary_theta > 0) qkv = ops::rotary(cx, std::move(qkv), layout_, options_.rotary_theta);
    if (!state) {
      const ops::AttentionOptions how{options_.causal, options_.dropout, dropout_site_};
      return out_.forward(cx, attention_.forward(cx, qkv, how));
    }
    ops::KeyValueCache cache{state->tensors[0], state->tensors[1], state->length};
    const Tensor mixed = ops::attention_cached(cx, qkv, layout_, cache);
    state->length = cache.length;
    return out_.forward(cx, mixed);
  }

  MixerState make_state(Allocator& memory, std::int64_t batch, std::int64_t capacity, DType dtype) const override {
    const Shape shape{batch, capacity, layout_.kv_heads, layout_.head_dim};
    return {{Tensor::empty(memory, shape, dtype, MemoryUse::activation),
             Tensor::empty(memory, shape, dtype, MemoryUse::activation)},
            0};
  }

 private:
  MixerOptions options_;
  HeadShare held_;
  ops::HeadLayout layout_;
  ColumnLinear qkv_;
  TokenParallelAttention attention_;
  RowLinear out_;
  int dropout_site_;
};

}  // namespace

std::unique_ptr<Mixer> make_attention(const BuildContext& build, const MixerOptions& options) {
  return std::make_unique<Attention>(build, options);
}

}  // namespace weft
