#include "launcher/hugging_face_config.hpp"

#include <fmt/format.h>

#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/base/error.hpp"

namespace weft {
namespace {

using nlohmann::json;

constexpr std::int64_t largest = std::int64_t{1} << 30;

/// The fields of an object; null stands for a field that is not there, as it does there.
class Fields {
 public:
  Fields(const json& object, std::string file, std::string prefix = {})
      : object_(object), file_(std::move(file)), prefix_(std::move(prefix)) {}

  const json* find(std::string_view name) const {
    const auto found = object_.find(name);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  std::int64_t size(std::string_view name, std::optional<std::int64_t> otherwise = {}) const {
    const json* value = find(name);
    if (!value && otherwise) return *otherwise;
    if (!value || !value->is_number_integer() || (value->is_number_unsigned() && *value > largest) ||
        value->get<std::int64_t>() < 1 || value->get<std::int64_t>() > largest)
      refuse(name, value, fmt::format("a whole number from 1 to {}", largest));
    return value->get<std::int64_t>();
  }
  double positive(std::string_view name, double otherwise) const {
    const json* value = find(name);
    if (!value) return otherwise;
    if (!value->is_number() || !(value->get<double>() > 0) || value->get<double>() > 1e30)
      refuse(name, value, "a number above 0");
    return value->get<double>();
  }
  double part(std::string_view name, double otherwise) const {
    const json* value = find(name);
    if (!value) return otherwise;
    if (!value->is_number() || !(value->get<double>() >= 0) || value->get<double>() >= 1)
      refuse(name, value, "a number from 0 to below 1");
    return value->get<double>();
  }
  bool yes_no(std::string_view name, bool otherwise) const {
    const json* value = find(name);
    if (!value) return otherwise;
    if (!value->is_boolean()) refuse(name, value, "true or false");
    return value->get<bool>();
  }
  void must_be(std::string_view name, std::initializer_list<json> allowed) const {
    const json* value = find(name);
    if (!value) return;
    for (const json& one : allowed)
      if (*value == one) return;
    refuse(name, value, allowed.begin()->dump());
  }
  [[noreturn]] void refuse(std::string_view name, const json* found, std::string_view right) const {
    constexpr std::size_t longest = 60;
    std::string text = found ? found->dump(-1, ' ', true, json::error_handler_t::replace) : "none";
    if (text.size() > longest) text = text.substr(0, longest) + "…";
    fail_user("{}: `{}{}`: found {}, {} would be right", file_, prefix_, name, text, right);
  }
  /// The fields of a field; empty ones where it is not there.
  Fields object(std::string_view name) const {
    static const json none = json::object();
    const json* value = find(name);
    if (value && !value->is_object()) refuse(name, value, "an object");
    return Fields(value ? *value : none, file_, fmt::format("{}{}.", prefix_, name));
  }

 private:
  const json& object_;
  std::string file_;
  std::string prefix_;
};

HuggingFaceModel gpt2_model(const Fields& fields) {
  fields.must_be("activation_function", {"gelu_new", "gelu_pytorch_tanh"});
  fields.must_be("scale_attn_weights", {true});
  fields.must_be("scale_attn_by_inverse_layer_idx", {false});
  fields.must_be("add_cross_attention", {false});
  HuggingFaceModel result;
  ModelOptions& m = result.model;
  m.name = "gpt2";
  m.norm = NormChoice::layer;
  m.mlp = MlpChoice::gelu;
  m.positions = PositionChoice::learned;
  m.bias = true;
  m.tied = fields.yes_no("tie_word_embeddings", true);
  m.vocab = fields.size("vocab_size");
  m.layers = fields.size("n_layer");
  m.d_model = fields.size("n_embd");
  m.heads = m.kv_heads = fields.size("n_head");
  m.d_ff = fields.size("n_inner", 4 * m.d_model);
  m.norm_eps = fields.positive("layer_norm_epsilon", 1e-5);
  result.seq = fields.find("n_positions") ? fields.size("n_positions") : fields.size("n_ctx");
  // Weft drops at the same three places, with one probability.
  const double dropout = fields.part("resid_pdrop", 0.1);
  m.dropout = dropout == fields.part("embd_pdrop", 0.1) && dropout == fields.part("attn_pdrop", 0.1) ? dropout : 0;
  return result;
}

// Since version 5 of transformers `rope_parameters` holds what were `rope_theta` and `rope_scaling`.
double rotary_theta(const Fields& fields) {
  const Fields scaling = fields.object("rope_scaling"), parameters = fields.object("rope_parameters");
  for (const Fields* one : {&scaling, &parameters})
    for (const char* name : {"rope_type", "type"}) one->must_be(name, {"default"});
  parameters.must_be("partial_rotary_factor", {1.0});
  fields.must_be("partial_rotary_factor", {1.0});
  return parameters.positive("rope_theta", fields.positive("rope_theta", 10000));
}

HuggingFaceModel llama_model(const Fields& fields) {
  fields.must_be("hidden_act", {"silu", "swish"});
  fields.must_be("attention_bias", {false});
  fields.must_be("mlp_bias", {false});
  HuggingFaceModel result;
  ModelOptions& m = result.model;
  m.name = "llama";
  m.norm = NormChoice::rms;
  m.mlp = MlpChoice::swiglu;
  m.positions = PositionChoice::rotary;
  m.bias = false;
  m.tied = fields.yes_no("tie_word_embeddings", false);
  m.vocab = fields.size("vocab_size");
  m.layers = fields.size("num_hidden_layers");
  m.d_model = fields.size("hidden_size");
  m.heads = fields.size("num_attention_heads");
  m.kv_heads = fields.size("num_key_value_heads", m.heads);
  m.d_ff = fields.size("intermediate_size");
  m.norm_eps = fields.positive("rms_norm_eps", 1e-6);
  m.rotary_theta = rotary_theta(fields);
  result.seq = fields.size("max_position_embeddings");
  if (m.d_model % m.heads == 0 && fields.size("head_dim", m.d_model / m.heads) != m.d_model / m.heads)
    fields.refuse("head_dim", fields.find("head_dim"),
                  fmt::format("hidden_size / num_attention_heads, {},", m.d_model / m.heads));
  if (m.heads % m.kv_heads != 0)
    fields.refuse("num_key_value_heads", fields.find("num_key_value_heads"),
                  fmt::format("a divisor of num_attention_heads {}", m.heads));
  if (m.d_model / m.heads % 2 != 0)
    fields.refuse("num_attention_heads", fields.find("num_attention_heads"), "heads of an even width");
  return result;
}

}  // namespace

HuggingFaceModel parse_hugging_face_config(std::string_view text, const std::string& file) {
  const json content = json::parse(text, nullptr, false);
  if (!content.is_object()) fail_user("{}: not a JSON object; the config.json of a model would be right", file);
  const Fields fields(content, file);
  const json* type = fields.find("model_type");
  if (!type || (*type != "gpt2" && *type != "llama")) fields.refuse("model_type", type, "\"gpt2\" or \"llama\"");
  if (const json* found = fields.find("quantization_config"))
    fields.refuse("quantization_config", found, "a model in f32, f16 or bf16");
  HuggingFaceModel result = *type == "gpt2" ? gpt2_model(fields) : llama_model(fields);
  const ModelOptions& m = result.model;
  if (m.d_model % m.heads != 0)
    fields.refuse(*type == "gpt2" ? "n_head" : "num_attention_heads",
                  fields.find(*type == "gpt2" ? "n_head" : "num_attention_heads"),
                  fmt::format("a divisor of the width {}", m.d_model));
  return result;
}

}  // namespace weft
