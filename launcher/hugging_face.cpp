#include "launcher/hugging_face.hpp"

#include <fmt/format.h>

#include <nlohmann/json.hpp>

#include "core/base/error.hpp"

namespace weft {
namespace {

bool is_gpt2(const LmConfig& c) {
  return c.positions == PositionStyle::learned && c.norm == NormStyle::layer &&
         c.feed_forward == FeedForwardStyle::gelu && c.bias && c.kv_heads == c.heads;
}

bool is_llama(const LmConfig& c) {
  return c.positions == PositionStyle::rotary && c.norm == NormStyle::rms &&
         c.feed_forward == FeedForwardStyle::swiglu && !c.bias;
}

void check(const LmConfig& c) {
  if (c.mixer != "attention" || c.block != BlockStyle::pre_norm)
    fail_user("the model's mixer is {}; Hugging Face's classes are there for attention in pre-norm blocks alone",
              c.mixer);
  if (!is_gpt2(c) && !is_llama(c))
    fail_user(
        "the model is neither GPT-2's (learned positions, layer norm, GELU, biases, as many key-value heads as heads) "
        "nor "
        "Llama's (rotary positions, RMS norm, SwiGLU, no biases); Hugging Face's classes are there for these two");
}

class TensorList {
 public:
  void add(std::string name, std::string parameter, std::int64_t rows, std::int64_t columns,
           std::int64_t first_row = 0) {
    list_.push_back({std::move(name), std::move(parameter), {rows, columns}, first_row, rows, false});
  }
  void add_vector(std::string name, std::string parameter, std::int64_t size) {
    list_.push_back({std::move(name), std::move(parameter), {size}, 0, size, false});
  }
  /// A layer with weight and bias whose weight is [in, out] there.
  void add_conv1d(const std::string& name, const std::string& parameter, std::int64_t out, std::int64_t in) {
    list_.push_back({name + ".weight", parameter + ".weight", {in, out}, 0, out, true});
    add_vector(name + ".bias", parameter + ".bias", out);
  }
  void add_norm(const std::string& name, const std::string& parameter, std::int64_t size, bool bias) {
    add_vector(name + ".weight", parameter + ".weight", size);
    if (bias) add_vector(name + ".bias", parameter + ".bias", size);
  }
  std::vector<HuggingFaceTensor> take() { return std::move(list_); }

 private:
  std::vector<HuggingFaceTensor> list_;
};

std::vector<HuggingFaceTensor> gpt2_tensors(const LmConfig& c) {
  TensorList list;
  list.add("transformer.wte.weight", "embed.tokens.weight", c.vocab, c.d_model);
  list.add("transformer.wpe.weight", "embed.positions.weight", c.max_seq, c.d_model);
  for (std::int64_t layer = 0; layer < c.layers; ++layer) {
    const std::string theirs = fmt::format("transformer.h.{}.", layer), own = fmt::format("blocks.{}.", layer);
    list.add_norm(theirs + "ln_1", own + "norm1", c.d_model, true);
    list.add_conv1d(theirs + "attn.c_attn", own + "mixer.qkv", 3 * c.d_model, c.d_model);
    list.add_conv1d(theirs + "attn.c_proj", own + "mixer.out", c.d_model, c.d_model);
    list.add_norm(theirs + "ln_2", own + "norm2", c.d_model, true);
    list.add_conv1d(theirs + "mlp.c_fc", own + "ffn.up", c.d_ff, c.d_model);
    list.add_conv1d(theirs + "mlp.c_proj", own + "ffn.down", c.d_model, c.d_ff);
  }
  list.add_norm("transformer.ln_f", "norm", c.d_model, true);
  if (!c.tied) list.add("lm_head.weight", "head.weight", c.vocab, c.d_model);
  return list.take();
}

// Both turn a head's first half with its second half, so that rows stay where they are.
std::vector<HuggingFaceTensor> llama_tensors(const LmConfig& c) {
  const std::int64_t width = c.d_model / c.heads * c.kv_heads;
  TensorList list;
  list.add("model.embed_tokens.weight", "embed.tokens.weight", c.vocab, c.d_model);
  for (std::int64_t layer = 0; layer < c.layers; ++layer) {
    const std::string theirs = fmt::format("model.layers.{}.", layer), own = fmt::format("blocks.{}.", layer);
    list.add_norm(theirs + "input_layernorm", own + "norm1", c.d_model, false);
    list.add(theirs + "self_attn.q_proj.weight", own + "mixer.qkv.weight", c.d_model, c.d_model);
    list.add(theirs + "self_attn.k_proj.weight", own + "mixer.qkv.weight", width, c.d_model, c.d_model);
    list.add(theirs + "self_attn.v_proj.weight", own + "mixer.qkv.weight", width, c.d_model, c.d_model + width);
    list.add(theirs + "self_attn.o_proj.weight", own + "mixer.out.weight", c.d_model, c.d_model);
    list.add_norm(theirs + "post_attention_layernorm", own + "norm2", c.d_model, false);
    list.add(theirs + "mlp.gate_proj.weight", own + "ffn.gate_up.weight", c.d_ff, c.d_model);
    list.add(theirs + "mlp.up_proj.weight", own + "ffn.gate_up.weight", c.d_ff, c.d_model, c.d_ff);
    list.add(theirs + "mlp.down_proj.weight", own + "ffn.down.weight", c.d_model, c.d_ff);
  }
  list.add_norm("model.norm", "norm", c.d_model, false);
  if (!c.tied) list.add("lm_head.weight", "head.weight", c.vocab, c.d_model);
  return list.take();
}

// As the user wrote it: 1e-6, not what a float makes of it in a double.
double decimal(float value) { return std::stod(fmt::format("{}", value)); }

}  // namespace

std::vector<HuggingFaceTensor> hugging_face_tensors(const LmConfig& config) {
  check(config);
  return is_gpt2(config) ? gpt2_tensors(config) : llama_tensors(config);
}

nlohmann::json hugging_face_config(const LmConfig& c, DType dtype) {
  const char* const type = dtype == DType::bf16 ? "bfloat16" : "float32";
  if (is_gpt2(c))
    return {{"architectures", {"GPT2LMHeadModel"}},
            {"model_type", "gpt2"},
            {"activation_function", "gelu_new"},
            {"vocab_size", c.vocab},
            {"n_positions", c.max_seq},
            {"n_ctx", c.max_seq},
            {"n_embd", c.d_model},
            {"n_layer", c.layers},
            {"n_head", c.heads},
            {"n_inner", c.d_ff},
            {"layer_norm_epsilon", decimal(c.norm_eps)},
            {"resid_pdrop", decimal(c.dropout)},
            {"embd_pdrop", decimal(c.dropout)},
            {"attn_pdrop", decimal(c.dropout)},
            {"tie_word_embeddings", c.tied},
            {"bos_token_id", nullptr},
            {"eos_token_id", nullptr},
            {"torch_dtype", type}};
  return {{"architectures", {"LlamaForCausalLM"}},
          {"model_type", "llama"},
          {"hidden_act", "silu"},
          {"vocab_size", c.vocab},
          {"max_position_embeddings", c.max_seq},
          {"hidden_size", c.d_model},
          {"num_hidden_layers", c.layers},
          {"num_attention_heads", c.heads},
          {"num_key_value_heads", c.kv_heads},
          {"head_dim", c.d_model / c.heads},
          {"intermediate_size", c.d_ff},
          {"rms_norm_eps", decimal(c.norm_eps)},
          {"rope_theta", decimal(c.rotary_theta)},
          {"attention_bias", false},
          {"mlp_bias", false},
          {"tie_word_embeddings", c.tied},
          {"bos_token_id", nullptr},
          {"eos_token_id", nullptr},
          {"torch_dtype", type}};
}

}  // namespace weft
