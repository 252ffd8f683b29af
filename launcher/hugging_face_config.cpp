#include "launcher/hugging_face_config.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>
#include <nlohmann/json.hpp>
#include <optional>

#include "core/base/error.hpp"
#include "core/io/json_excerpt.hpp"

namespace weft {
namespace {

using nlohmann::json;

// As the options have them.
constexpr std::int64_t largest = std::int64_t{1} << 30, most_layers = 1 << 16, widest = 1 << 20, widest_inner = 1 << 24;

/// The fields of an object; null stands for a field that is not there, as it does there.
class Fields {
 public:
  Fields(const json& object, std::string file, std::string prefix = {})
      : object_(object), file_(std::move(file)), prefix_(std::move(prefix)) {}

  const json* find(std::string_view name) const {
    const auto found = object_.find(name);
    return found == object_.end() || found->is_null() ? nullptr : &*found;
  }
  std::int64_t size(std::string_view name, std::int64_t most, std::optional<std::int64_t> otherwise = {}) const {
    const json* value = find(name);
    if (!value && otherwise) return *otherwise;
    if (!value || !value->is_number_integer() || (value->is_number_unsigned() && *value > most) ||
        value->get<std::int64_t>() < 1 || value->get<std::int64_t>() > most)
      refuse(name, value, fmt::format("a whole number from 1 to {}", most));
    return value->get<std::int64_t>();
  }
  double positive(std::string_view name, double otherwise, double most) const {
    const json* value = find(name);
    if (!value) return otherwise;
    if (!value->is_number() || !(value->get<double>() > 0) || value->get<double>() > most)
      refuse(name, value, fmt::format("a number above 0, {} at most,", most));
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
  void must_be_absent(std::string_view name, std::string_view right = "null") const {
    if (const json* value = find(name)) refuse(name, value, right);
  }
  /// A list, each element of which is one of those allowed.
  void must_be_list_of(std::string_view name, std::initializer_list<json> allowed) const {
    const json* value = find(name);
    if (!value) return;
    const auto known = [&](const json& one) { return std::ranges::find(allowed, one) != allowed.end(); };
    if (!value->is_array() || !std::ranges::all_of(*value, known))
      refuse(name, value, fmt::format("[{}]", allowed.begin()->dump()));
  }
  [[noreturn]] void refuse(std::string_view name, const json* found, std::string_view right) const {
    fail_user("{}: `{}{}`: found {}, {} would be right", file_, prefix_, name, found ? json_excerpt(*found) : "none",
              right);
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

// Weft drops at the same places.
void take_dropout(const Fields& fields, std::initializer_list<std::pair<const char*, double>> parts,
                  HuggingFaceModel& result) {
  std::string shown;
  bool equal = true;
  const double first = fields.part(parts.begin()->first, parts.begin()->second);
  for (const auto& [name, otherwise] : parts) {
    const double part = fields.part(name, otherwise);
    shown += fmt::format("{}`{}` {}", shown.empty() ? "" : ", ", name, part);
    equal = equal && part == first;
  }
  result.model.dropout = equal ? first : 0;
  if (!equal) result.notes.push_back(fmt::format("{}: Weft drops with one probability, taken is 0", shown));
}

HuggingFaceModel gpt2_model(const Fields& fields) {
  fields.must_be_list_of("architectures", {"GPT2LMHeadModel", "GPT2Model"});
  fields.must_be("activation_function", {"gelu_new", "gelu_pytorch_tanh"});
  fields.must_be("scale_attn_weights", {true});
  fields.must_be("scale_attn_by_inverse_layer_idx", {false});
  fields.must_be("add_cross_attention", {false});
  fields.must_be("is_encoder_decoder", {false});
  fields.must_be("pruned_heads", {json::object()});
  HuggingFaceModel result;
  ModelOptions& m = result.model;
  m.name = "gpt2";
  m.norm = NormChoice::layer;
  m.mlp = MlpChoice::gelu;
  m.positions = PositionChoice::learned;
  m.bias = true;
  m.tied = fields.yes_no("tie_word_embeddings", true);
  m.vocab = fields.size("vocab_size", largest);
  m.layers = fields.size("n_layer", most_layers);
  m.d_model = fields.size("n_embd", widest);
  m.heads = m.kv_heads = fields.size("n_head", widest);
  m.d_ff = fields.size("n_inner", widest_inner, 4 * m.d_model);
  m.norm_eps = fields.positive("layer_norm_epsilon", 1e-5, 1);
  result.seq = fields.find("n_positions") ? fields.size("n_positions", largest) : fields.size("n_ctx", largest);
  take_dropout(fields, {{"resid_pdrop", 0.1}, {"embd_pdrop", 0.1}, {"attn_pdrop", 0.1}}, result);
  return result;
}

// Since version 5 of transformers `rope_parameters` holds what were `rope_theta` and `rope_scaling`.
double rotary_theta(const Fields& fields) {
  const Fields scaling = fields.object("rope_scaling"), parameters = fields.object("rope_parameters");
  for (const Fields* one : {&scaling, &parameters})
    for (const char* name : {"rope_type", "type"}) one->must_be(name, {"default"});
  // Numbers that scale without a word that says how, and parameters of kinds of layers.
  for (const Fields* one : {&scaling, &parameters}) {
    if (!one->find("rope_type") && !one->find("type")) one->must_be_absent("factor", "a rope_type \"default\"");
    for (const char* name : {"full_attention", "sliding_attention"}) one->must_be_absent(name);
  }
  for (const Fields* one : {&scaling, &parameters, &fields}) one->must_be("partial_rotary_factor", {1.0});
  // Where both are there, transformers takes rope_scaling for rope_parameters.
  constexpr double most = 1e30;
  const double theta = parameters.positive("rope_theta", fields.positive("rope_theta", 10000, most), most);
  const double scaled = scaling.positive("rope_theta", theta, most);
  if (parameters.find("rope_theta") && scaled != theta)
    scaling.refuse("rope_theta", scaling.find("rope_theta"), fmt::format("that of rope_parameters, {}", theta));
  return scaled;
}

HuggingFaceModel llama_model(const Fields& fields) {
  fields.must_be_list_of("architectures", {"LlamaForCausalLM", "LlamaModel"});
  fields.must_be_list_of("layer_types", {"full_attention"});
  fields.must_be("hidden_act", {"silu", "swish"});
  fields.must_be("attention_bias", {false});
  fields.must_be("mlp_bias", {false});
  fields.must_be("use_sliding_window", {false});
  for (const char* name : {"sliding_window", "attn_logit_softcapping", "final_logit_softcapping"})
    fields.must_be_absent(name);
  HuggingFaceModel result;
  ModelOptions& m = result.model;
  m.name = "llama";
  m.norm = NormChoice::rms;
  m.mlp = MlpChoice::swiglu;
  m.positions = PositionChoice::rotary;
  m.bias = false;
  m.tied = fields.yes_no("tie_word_embeddings", false);
  m.vocab = fields.size("vocab_size", largest);
  m.layers = fields.size("num_hidden_layers", most_layers);
  m.d_model = fields.size("hidden_size", widest);
  m.heads = fields.size("num_attention_heads", widest);
  m.kv_heads = fields.size("num_key_value_heads", widest, m.heads);
  m.d_ff = fields.size("intermediate_size", widest_inner);
  m.norm_eps = fields.positive("rms_norm_eps", 1e-6, 1);
  m.rotary_theta = rotary_theta(fields);
  result.seq = fields.size("max_position_embeddings", largest);
  if (const double dropout = fields.part("attention_dropout", 0); dropout != 0)
    result.notes.push_back(
        fmt::format("`attention_dropout` {}: Weft would drop outside attention too, taken is 0", dropout));
  if (m.d_model % m.heads == 0 && fields.size("head_dim", widest, m.d_model / m.heads) != m.d_model / m.heads)
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
  fields.must_be_absent("quantization_config", "a model in f32, f16 or bf16");
  fields.must_be_absent("auto_map", "a model of transformers' own classes");
  HuggingFaceModel result = *type == "gpt2" ? gpt2_model(fields) : llama_model(fields);
  const ModelOptions& m = result.model;
  if (m.d_model % m.heads != 0)
    fields.refuse(*type == "gpt2" ? "n_head" : "num_attention_heads",
                  fields.find(*type == "gpt2" ? "n_head" : "num_attention_heads"),
                  fmt::format("a divisor of the width {}", m.d_model));
  return result;
}

}  // namespace weft
