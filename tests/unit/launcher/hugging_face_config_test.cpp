// config.json of Hugging Face's classes: what import would change is refused by name, whatever the file holds.
#include "launcher/hugging_face_config.hpp"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "launcher/options_check.hpp"
#include "tests/fuzz/exercise_config.hpp"
#include "tests/fuzz/json_mutation.hpp"
#include "tests/unit/io/temp_folder.hpp"

namespace weft {
namespace {

using nlohmann::json;
using test::user_error;
using testing::AllOf;
using testing::HasSubstr;

const json gpt2 = {{"architectures", {"GPT2LMHeadModel"}},
                   {"model_type", "gpt2"},
                   {"vocab_size", 50257},
                   {"n_positions", 1024},
                   {"n_embd", 768},
                   {"n_layer", 12},
                   {"n_head", 12},
                   {"resid_pdrop", 0.1},
                   {"activation_function", "gelu_new"}};
const json llama = {{"architectures", {"LlamaForCausalLM"}},
                    {"model_type", "llama"},
                    {"vocab_size", 128256},
                    {"max_position_embeddings", 8192},
                    {"hidden_size", 64},
                    {"num_hidden_layers", 2},
                    {"num_attention_heads", 8},
                    {"num_key_value_heads", 2},
                    {"intermediate_size", 96},
                    {"hidden_act", "silu"},
                    {"rms_norm_eps", 1e-5},
                    {"rope_scaling", nullptr},
                    {"rope_theta", 500000.0},
                    {"tie_word_embeddings", false}};

HuggingFaceModel parse(const json& config) { return parse_hugging_face_config(config.dump(), "FILE"); }

TEST(HuggingFaceConfig, OfBothClassesIsTaken) {
  const HuggingFaceModel a = parse(gpt2), b = parse(llama);
  EXPECT_EQ(a.model.d_ff, 4 * 768);
  EXPECT_EQ(a.model.dropout, 0.1);
  EXPECT_TRUE(a.model.tied);
  EXPECT_TRUE(a.notes.empty());
  EXPECT_EQ(b.seq, 8192);
  EXPECT_EQ(b.model.kv_heads, 2);
  EXPECT_EQ(b.model.rotary_theta, 500000);
  EXPECT_EQ(b.model.norm_eps, 1e-5);
  EXPECT_FALSE(b.model.tied);
  json newer = llama;
  newer.erase("rope_theta");
  newer["rope_parameters"] = {{"rope_type", "default"}, {"rope_theta", 7000}};
  EXPECT_EQ(parse(newer).model.rotary_theta, 7000);
  newer.erase("rope_parameters");
  newer["rope_scaling"] = {{"rope_type", "default"}, {"rope_theta", 9000}};
  EXPECT_EQ(parse(newer).model.rotary_theta, 9000);
}

TEST(HuggingFaceConfig, DropoutsThatWeftHasNotAreNoted) {
  json config = gpt2;
  config["attn_pdrop"] = 0;
  EXPECT_EQ(parse(config).model.dropout, 0);
  EXPECT_THAT(parse(config).notes,
              testing::ElementsAre("`resid_pdrop` 0.1, `embd_pdrop` 0.1, `attn_pdrop` 0: Weft drops with one "
                                   "probability, taken is 0"));
  config = llama;
  config["attention_dropout"] = 0.2;
  EXPECT_THAT(parse(config).notes, testing::ElementsAre(HasSubstr("`attention_dropout` 0.2")));
}

TEST(HuggingFaceConfig, WhatTheModelWouldNotFollowIsRefused) {
  struct Case {
    const json& right;
    std::string field;
    json value;
    std::string message;
  };
  for (const auto& [right, field, value, message] : std::vector<Case>{
           {llama, "model_type", "mistral", "`model_type`: found \"mistral\", \"gpt2\" or \"llama\" would be right"},
           {llama, "rope_scaling", {{"rope_type", "yarn"}, {"factor", 4}}, "`rope_scaling.rope_type`: found \"yarn\""},
           {llama, "rope_scaling", {{"type", "linear"}}, "`rope_scaling.type`: found \"linear\""},
           {llama, "rope_scaling", {{"rope_type", "default"}, {"partial_rotary_factor", 0.5}},
            "`rope_scaling.partial_rotary_factor`: found 0.5"},
           {llama, "rope_scaling", {{"factor", 4}}, "`rope_scaling.factor`: found 4, a rope_type"},
           {llama, "rope_scaling", 2, "`rope_scaling`: found 2, an object"},
           {llama, "rope_parameters", {{"rope_type", "linear"}}, "`rope_parameters.rope_type`: found \"linear\""},
           {llama, "rope_parameters", {{"full_attention", json::object()}}, "`rope_parameters.full_attention`"},
           {llama, "partial_rotary_factor", 0.5, "`partial_rotary_factor`: found 0.5, 1.0"},
           {llama, "hidden_act", "gelu", "`hidden_act`: found \"gelu\", \"silu\" would be right"},
           {llama, "attention_bias", true, "`attention_bias`: found true, false would be right"},
           {llama, "mlp_bias", true, "`mlp_bias`: found true"},
           {llama, "sliding_window", 16, "`sliding_window`: found 16, null would be right"},
           {llama, "layer_types", {"sliding_attention"}, "`layer_types`: found [\"sliding_attention\"]"},
           {llama, "architectures", {"LlamaForSequenceClassification"}, "[\"LlamaForCausalLM\"] would be right"},
           {llama, "auto_map", {{"AutoModel", "mine.Model"}}, "`auto_map`: found"},
           {llama, "quantization_config", {{"bits", 4}}, "`quantization_config`: found {\"bits\":4}"},
           {llama, "head_dim", 16, "`head_dim`: found 16"},
           {llama, "num_attention_heads", 0, "`num_attention_heads`: found 0"},
           {llama, "num_attention_heads", 64, "`num_attention_heads`: found 64, heads of an even width"},
           {llama, "num_key_value_heads", 3, "`num_key_value_heads`: found 3"},
           {llama, "hidden_size", "64", "`hidden_size`: found \"64\""},
           {llama, "vocab_size", 1e9, "`vocab_size`: found 1000000000.0"},
           {llama, "num_hidden_layers", 1 << 20, "`num_hidden_layers`: found 1048576, a whole number from 1 to 65536"},
           {llama, "rms_norm_eps", 2, "`rms_norm_eps`: found 2, a number above 0, 1 at most,"},
           {gpt2, "activation_function", "relu", "`activation_function`: found \"relu\", \"gelu_new\" would be right"},
           {gpt2, "scale_attn_by_inverse_layer_idx", true, "`scale_attn_by_inverse_layer_idx`: found true"},
           {gpt2, "scale_attn_weights", false, "`scale_attn_weights`: found false"},
           {gpt2, "add_cross_attention", true, "`add_cross_attention`: found true"},
           {gpt2, "pruned_heads", {{"1", {0}}}, "`pruned_heads`: found {\"1\":[0]}, {} would be right"},
           {gpt2, "resid_pdrop", 1, "`resid_pdrop`: found 1, a number from 0 to below 1"},
           {gpt2, "n_head", 7, "`n_head`: found 7, a divisor of the width 768"}}) {
    json wrong = right;
    wrong[field] = value;
    EXPECT_THAT(user_error([&] { parse(wrong); }), AllOf(HasSubstr("FILE: "), HasSubstr(message))) << field;
  }
}

TEST(HuggingFaceConfig, MutatedIsRefusedOrMakesOptionsThatComeBackTheSame) {
  std::mt19937 random(23);
  constexpr int rounds = 20000;
  int accepted = 0;
  for (int round = 0; round < rounds; ++round) {
    const std::string text = test::mutated(round % 2 ? gpt2 : llama, random);
    bool good = false;
    ASSERT_NO_THROW(good = test::exercise_config(text)) << "round " << round << ": " << text;
    if (!good || round % 20 != 0) continue;
    ++accepted;
    const HuggingFaceModel model = parse_hugging_face_config(text, "FILE");
    Options options = parse_config("train", "", "the defaults");
    options.model = model.model;
    options.train.seq = model.seq;
    resolve(options);
    ASSERT_NO_THROW(check_fit(options)) << text;
    const std::string written = model_text(options);
    // A preset's name stands in --model; here the rest describes the model whole.
    ASSERT_EQ(model_text(parse_config("train", written, "FILE")), written) << text;
  }
  EXPECT_GT(accepted, 50);
  EXPECT_LT(accepted, rounds / 20);
}

TEST(HuggingFaceConfig, NestedDeeperThanTheStackIsRefused) {
  for (const auto& [open, close] : {std::pair{"[", "]"}, {R"({"a":)", "}"}}) {
    std::string text = gpt2.dump();
    text.insert(1, R"("quantization_config":)" + test::nested(open, close) + ",");
    EXPECT_THAT(user_error([&] { parse_hugging_face_config(text, "FILE"); }),
                HasSubstr("`quantization_config`: found"));
  }
}

}  // namespace
}  // namespace weft
