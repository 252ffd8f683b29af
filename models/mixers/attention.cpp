// y = concat_h softmax(q_h k_hᵀ/√hd) v_h · W_O with [q|k|v] = x W + b (section 3.2 of Vaswani et al. 2017); H query heads
// share Hkv key-value heads (Ainslie et al. 2023).
#include "models/mixers/attention.hpp"

#include "models/mixers/attention_heads.hpp"
#include "parallel/layers/sequence_attention.hpp"

namespace weft {
namespace {

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
