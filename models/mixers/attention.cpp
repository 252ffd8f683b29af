// y = concat_h softmax(q_h k_hᵀ/√hd) v_h · W_O with [q|k|v] = x W + b (section 3.2 of Vaswani et al. 2017); H query heads
// share Hkv key-value heads (Ainslie et al. 2023).
#include "models/mixers/attention.hpp"

#include "core/nn/layers.hpp"
#include "core/ops/attention.hpp"

namespace weft {
namespace {

ops::HeadLayout head_layout(const MixerOptions& options) {
  if (options.heads < 1 || options.d_model % options.heads != 0)
    fail_user("--heads: {} heads do not divide --d-model {}", options.heads, options.d_model);
  if (options.kv_heads < 1 || options.heads % options.kv_heads != 0)
    fail_user("--kv-heads: {} key-value heads do not divide --heads {}", options.kv_heads, options.heads);
  const std::int64_t head_dim = options.d_model / options.heads;
  if (head_dim > 256)
    fail_user("--heads: {} heads of {} give heads {} wide, at most 256 is supported", options.heads, options.d_model,
              head_dim);
  if (options.rotary_theta > 0 && head_dim % 2 != 0)
    fail_user("--heads: rotary positions need an even head width, {} heads of {} give {}", options.heads,
              options.d_model, head_dim);
  return {options.heads, options.kv_heads, head_dim};
}

class Attention final : public Mixer {
 public:
  Attention(const BuildContext& build, const MixerOptions& options)
      : options_(options), layout_(head_layout(options)),
        qkv_(build.build.child("qkv"), options.d_model, layout_.width(), {options.bias, 0.02}),
        out_(build.build.child("out"), options.d_model, options.d_model, {options.bias, options.out_deviation}),
        dropout_site_(build.build.dropout_site()) {}

  MixerTraits traits() const override { return {.causal = options_.causal, .heads_shardable = true}; }

  Tensor forward(OpContext& cx, const MixerInput& input, MixerState* state) const override {
    Tensor qkv = qkv_.forward(cx, input.x);
    if (options_.rotary_theta > 0) qkv = ops::rotary(cx, std::move(qkv), layout_, options_.rotary_theta);
    if (!state) return out_.forward(cx, ops::attention(cx, qkv, layout_, {options_.causal, options_.dropout, dropout_site_}));
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
  ops::HeadLayout layout_;
  nn::Linear qkv_;
  nn::Linear out_;
  int dropout_site_;
};

}  // namespace

std::unique_ptr<Mixer> make_attention(const BuildContext& build, const MixerOptions& options) {
  return std::make_unique<Attention>(build, options);
}

}  // namespace weft
