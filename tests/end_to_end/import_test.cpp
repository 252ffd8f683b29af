// Hugging Face folders as runs: what `weft export` writes comes back bit by bit, trains on, and what is wrong is refused.
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <bit>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/io/safetensors.hpp"
#include "faults.hpp"

namespace weft::test {
namespace {

using nlohmann::json;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
namespace fs = std::filesystem;

std::map<std::string, std::string> tensors_of(const std::string& file) {
  std::map<std::string, std::string> tensors;
  const SafetensorsReader reader(file);
  for (const SafetensorsEntry& entry : reader.entries()) {
    const auto bytes = reader.bytes(entry);
    if (!entry.name.starts_with("optimizer."))
      tensors[entry.name] = std::string(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  }
  return tensors;
}

std::string content_of(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

json read_json(const std::string& path) { return json::parse(std::ifstream(path)); }

class Import : public testing::Test {
 protected:
  /// Trains two steps and exports; returns the folder.
  std::string exported(const Words& options) {
    Words more = {"--steps", "2"};
    more.insert(more.end(), options.begin(), options.end());
    const Outcome trained = run_.run(0, more);
    EXPECT_EQ(trained.status, 0) << trained.err;
    const Outcome outcome = run_weft({"export", run_.out(), "--out", folder_ / "theirs"});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return folder_ / "theirs";
  }
  Outcome import(const std::string& from) const { return run_weft({"import", from, "--out", folder_ / "own"}); }
  std::string shard(const std::string& run, int step) const {
    return fmt::format("{}/checkpoints/step-{:08}/shard-00000-of-00001.safetensors", run, step);
  }
  /// Writes the weights anew: their tensors as `change` leaves them, all in F32.
  static void rewrite(
      const std::string& folder,
      const std::function<void(std::map<std::string, std::vector<float>>&, std::map<std::string, Shape>&)>& change) {
    std::map<std::string, std::vector<float>> values;
    std::map<std::string, Shape> shapes;
    {
      const SafetensorsReader reader(folder + "/model.safetensors");
      for (const SafetensorsEntry& entry : reader.entries()) {
        const auto bytes = reader.bytes(entry);
        values[entry.name].resize(bytes.size() / sizeof(float));
        std::memcpy(values[entry.name].data(), bytes.data(), bytes.size());
        shapes[entry.name] = entry.shape;
      }
    }
    change(values, shapes);
    std::vector<SafetensorsSource> sources;
    for (const auto& [name, data] : values) sources.emplace_back(name, View(data.data(), shapes[name], DType::f32));
    write_safetensors(folder + "/model.safetensors", sources);
  }
  void expect_refused(const std::string& from, const testing::Matcher<std::string>& message) const {
    const Outcome outcome = import(from);
    EXPECT_EQ(outcome.status, 2);
    EXPECT_THAT(outcome.lines(), ElementsAre(message));
    EXPECT_FALSE(fs::exists(folder_ / "own"));
  }

  Training run_;
  TemporaryFolder folder_;
};

class ImportOf : public Import, public testing::WithParamInterface<Words> {};

TEST_P(ImportOf, WhatWasExportedIsTheSameBitsAndGoesBackTheSame) {
  const std::string theirs = exported(GetParam());
  const Outcome outcome = import(theirs);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_EQ(tensors_of(shard(folder_ / "own", 0)), tensors_of(shard(run_.out(), 2)));
  ASSERT_EQ(run_weft({"export", folder_ / "own", "--out", folder_ / "again"}).status, 0);
  EXPECT_EQ(tensors_of(folder_ / "again/model.safetensors"), tensors_of(theirs + "/model.safetensors"));
  EXPECT_EQ(read_json(folder_ / "again/config.json"), read_json(theirs + "/config.json"));
  const Words data = {"--data", run_.folder() / "data.txt", "--dtype", "f32", "--json"};
  const auto loss = [&](const std::string& run) {
    Words words = {"eval", "--checkpoint", run};
    words.insert(words.end(), data.begin(), data.end());
    return json::parse(run_weft(words).out).at("loss").get<double>();
  };
  EXPECT_EQ(loss(folder_ / "own"), loss(run_.out()));
}

INSTANTIATE_TEST_SUITE_P(Models, ImportOf,
                         testing::Values(Words{"--model", "gpt2"}, Words{"--model", "gpt2", "--tied", "no"},
                                         Words{"--model", "llama", "--kv-heads", "1", "--rotary-theta", "50000",
                                               "--norm-eps", "1e-6"},
                                         Words{"--model", "llama", "--tied", "yes"}));

TEST_F(Import, TrainsOnFromTheWeightsOnAnyMesh) {
  ASSERT_EQ(import(exported({"--model", "llama"})).status, 0);
  const Outcome outcome = run_weft({"launch",
                                    "-n",
                                    "2",
                                    "--",
                                    "train",
                                    "--config",
                                    folder_ / "own/config.cfg",
                                    "--resume",
                                    folder_ / "own",
                                    "--out",
                                    folder_ / "tuned",
                                    "--data",
                                    run_.folder() / "data.txt",
                                    "--tp",
                                    "2",
                                    "--steps",
                                    "1",
                                    "--lr",
                                    "1e-30",
                                    "--threads",
                                    "1",
                                    "--seed",
                                    "7",
                                    "--batch",
                                    "2"});
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  ASSERT_EQ(run_weft({"export", folder_ / "tuned", "--out", folder_ / "again"}).status, 0);
  EXPECT_EQ(tensors_of(folder_ / "again/model.safetensors"), tensors_of(folder_ / "theirs/model.safetensors"));
}

// An IEEE half: sign, 5 bits of exponent, 10 of fraction.
float value_of_half(std::uint16_t bits) {
  const int exponent = (bits >> 10) & 31, fraction = bits & 1023;
  const float size = exponent == 0 ? std::ldexp(static_cast<float>(fraction), -24)
                                   : std::ldexp(static_cast<float>(1024 + fraction), exponent - 25);
  return bits & 0x8000 ? -size : size;
}

TEST_F(Import, ReadsEveryKindOfHalf) {
  const std::string theirs = exported({"--model", "llama", "--vocab", "1200"});
  json header;
  std::vector<std::uint16_t> halves;
  std::map<std::string, std::size_t> first;
  const SafetensorsReader reader(theirs + "/model.safetensors");
  for (const SafetensorsEntry& entry : reader.entries()) {
    first[entry.name] = halves.size();
    // In this order all 65536 come, subnormal numbers and both zeros among them.
    for (std::int64_t i = 0; i < entry.shape.numel(); ++i) {
      const auto bits = static_cast<std::uint16_t>(halves.size() * 40503);
      halves.push_back((bits & 0x7c00) == 0x7c00 ? 0x8001 : bits);
    }
    const auto sizes = entry.shape.sizes();
    header[entry.name] = {{"dtype", "F16"},
                          {"shape", std::vector<std::int64_t>(sizes.begin(), sizes.end())},
                          {"data_offsets", {2 * first[entry.name], 2 * halves.size()}}};
  }
  const std::string text = header.dump();
  const std::uint64_t length = text.size();
  fs::remove(theirs + "/model.safetensors");
  std::ofstream(theirs + "/model.safetensors", std::ios::binary)
      .write(reinterpret_cast<const char*>(&length), sizeof length)
      .write(text.data(), static_cast<std::streamsize>(length))
      .write(reinterpret_cast<const char*>(halves.data()), static_cast<std::streamsize>(2 * halves.size()));
  const Outcome outcome = import(theirs);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  ASSERT_EQ(run_weft({"export", folder_ / "own", "--out", folder_ / "again"}).status, 0);
  const SafetensorsReader again(folder_ / "again/model.safetensors");
  for (const SafetensorsEntry& entry : again.entries()) {
    const auto* values = again.view(entry.name).as<float>();
    for (std::int64_t i = 0; i < entry.shape.numel(); ++i) {
      const std::uint16_t bits = halves[first.at(entry.name) + static_cast<std::size_t>(i)];
      ASSERT_EQ(std::bit_cast<std::uint32_t>(values[i]), std::bit_cast<std::uint32_t>(value_of_half(bits))) << bits;
    }
  }
}

TEST_F(Import, ReadsShardsHalvesAndNamesWithoutPrefix) {
  const std::string theirs = exported({"--model", "gpt2"});
  // Every other tensor in a file of its own, as 16 bits.
  const SafetensorsReader reader(theirs + "/model.safetensors");
  std::vector<std::vector<bf16>> rounded;
  std::vector<SafetensorsSource> files[2];
  json map;
  for (const SafetensorsEntry& entry : reader.entries()) {
    const auto* from = reader.view(entry.name).as<float>();
    auto& values = rounded.emplace_back();
    for (std::int64_t i = 0; i < entry.shape.numel(); ++i) values.emplace_back(from[i]);
    const std::string name = entry.name.substr(std::string("transformer.").size());
    const std::size_t file = rounded.size() % 2;
    files[file].emplace_back(name, View(values.data(), entry.shape, DType::bf16));
    map[name] = fmt::format("part-{}.safetensors", file);
  }
  const std::string parts = folder_ / "parts";
  fs::create_directory(parts);
  for (int file : {0, 1}) write_safetensors(fmt::format("{}/part-{}.safetensors", parts, file), files[file]);
  fs::copy(theirs + "/config.json", parts + "/config.json");
  const auto write_index = [&] {
    std::ofstream(parts + "/model.safetensors.index.json") << json{{"weight_map", map}}.dump();
  };
  write_index();
  ASSERT_EQ(import(parts).status, 0);
  ASSERT_EQ(run_weft({"export", folder_ / "own", "--out", folder_ / "again", "--dtype", "bf16"}).status, 0);
  const SafetensorsReader again(folder_ / "again/model.safetensors");
  std::size_t place = 0;
  for (const SafetensorsEntry& entry : reader.entries()) {
    const auto bytes = again.bytes(again.entry(entry.name));
    EXPECT_EQ(std::memcmp(bytes.data(), rounded[place++].data(), bytes.size()), 0) << entry.name;
  }
  fs::remove_all(folder_ / "own");
  map["wte.weight"] = map["wte.weight"] == "part-0.safetensors" ? "part-1.safetensors" : "part-0.safetensors";
  write_index();
  expect_refused(parts, AllOf(HasSubstr("has no tensor wte.weight"), HasSubstr("index.json says")));
}

class ImportedTokenizer : public Import {
 protected:
  ImportedTokenizer() {
    std::string text;
    for (int i = 0; i < 300; ++i) text += fmt::format("It's größer than {}\n\n\tline\n", i);
    text_ = folder_.write("text.txt", text);
    const Outcome prepared =
        run_weft({"prepare", "--tokenizer-file", tokenizer_, "--valid-fraction", "0", "--out", prepared_, text_});
    EXPECT_EQ(prepared.status, 0) << prepared.err;
  }
  json evaluated(const std::string& run, const Words& more) const {
    Words words = {"eval", "--checkpoint", run, "--dtype", "f32", "--json"};
    words.insert(words.end(), more.begin(), more.end());
    const Outcome outcome = run_weft(words);
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    json row = json::parse(outcome.out);
    row.erase("checkpoint");
    return row;
  }
  Words train_on(const std::string& data) const {
    return {"train",
            "--config",
            folder_ / "own/config.cfg",
            "--resume",
            folder_ / "own",
            "--out",
            folder_ / "tuned",
            "--data",
            data,
            "--steps",
            "1",
            "--batch",
            "2",
            "--threads",
            "1"};
  }

  const std::string tokenizer_ = WEFT_REFERENCE_DATA "/tokenizer-gpt2.json";
  const std::string prepared_ = folder_ / "prepared";
  std::string text_;
};

TEST_F(ImportedTokenizer, GoesWithTheModelAndReadsText) {
  const std::string theirs = exported({"--model", "gpt2", "--data", prepared_, "--valid-fraction", "0"});
  EXPECT_EQ(content_of(theirs + "/tokenizer.json"), content_of(tokenizer_));
  const Outcome outcome = import(theirs);
  ASSERT_EQ(outcome.status, 0) << outcome.err;
  EXPECT_THAT(outcome.out, HasSubstr("byte-level bpe tokenizer"));
  fs::rename(prepared_, folder_ / "elsewhere");
  for (const std::string& run : {run_.out(), folder_ / "own"}) {
    const Outcome sample = run_weft({"sample", "--checkpoint", run, "--prompt", "größer", "--tokens", "4"});
    EXPECT_EQ(sample.status, 0) << sample.err;
    EXPECT_THAT(sample.out, testing::StartsWith("größer"));
    EXPECT_EQ(evaluated(run, {"--data", text_}), evaluated(run, {"--data", folder_ / "elsewhere/train.bin"}));
    EXPECT_NE(evaluated(run, {"--data", text_, "--data-format", "bytes"}), evaluated(run, {"--data", text_}));
  }
  // Bytes are none of its tokens.
  const Outcome bytes = run_weft(train_on(text_));
  EXPECT_EQ(bytes.status, 2);
  EXPECT_THAT(bytes.lines(), ElementsAre(AllOf(HasSubstr("--data"), HasSubstr("text.txt is text"),
                                               HasSubstr("weft prepare --tokenizer-file"))));
  EXPECT_FALSE(fs::exists(folder_ / "tuned"));
  const Outcome tuned = run_weft(train_on(folder_ / "elsewhere/train.bin"));
  EXPECT_EQ(tuned.status, 0) << tuned.err;
  EXPECT_EQ(content_of(folder_ / "tuned/tokenizer.json"), content_of(tokenizer_));
}

TEST_F(ImportedTokenizer, ThatIsMissingOrNotFollowedIsSaidAndAskedFor) {
  const std::string theirs = exported({"--model", "gpt2", "--data", prepared_, "--valid-fraction", "0"});
  json changed = read_json(tokenizer_);
  changed["normalizer"] = {{"type", "NFC"}};
  std::ofstream(theirs + "/tokenizer.json") << changed.dump();
  Outcome outcome = import(theirs);
  EXPECT_EQ(outcome.status, 0);
  EXPECT_THAT(outcome.lines(), ElementsAre(AllOf(HasSubstr("no tokenizer is imported"), HasSubstr("`normalizer`"),
                                                 HasSubstr("--tokenizer-file"))));
  fs::remove(theirs + "/tokenizer.json");
  fs::remove_all(folder_ / "own");
  outcome = import(theirs);
  EXPECT_EQ(outcome.status, 0);
  EXPECT_THAT(outcome.lines(), ElementsAre(HasSubstr("no tokenizer.json or tokenizer.model in")));
  for (const Words& words : {Words{"sample", "--checkpoint", folder_ / "own"},
                             Words{"eval", "--checkpoint", folder_ / "own", "--data", text_}}) {
    const Outcome refused = run_weft(words);
    EXPECT_EQ(refused.status, 2);
    EXPECT_THAT(refused.lines(), ElementsAre(HasSubstr("--tokenizer-file: missing")));
  }
  EXPECT_EQ(run_weft(train_on(text_)).status, 2);
  EXPECT_EQ(evaluated(folder_ / "own", {"--data", text_, "--tokenizer-file", tokenizer_}),
            evaluated(folder_ / "own", {"--data", prepared_}));
}

TEST_F(Import, AConfigurationThatTheModelWouldNotFollowIsRefused) {
  const std::string theirs = exported({"--model", "llama"}), config = theirs + "/config.json";
  const json right = read_json(config);
  struct Case {
    std::string field;
    json value;
    std::string message;
  };
  for (const auto& [field, value, message] : std::vector<Case>{
           {"model_type", "mistral", "`model_type`: found \"mistral\", \"gpt2\" or \"llama\" would be right"},
           {"num_hidden_layers", 2, "no tensor model.layers.1.input_layernorm.weight"},
           {"tie_word_embeddings", true, "tensor lm_head.weight: found other values than model.embed_tokens.weight"},
           {"intermediate_size", 64, "would be right"}}) {
    json wrong = right;
    wrong[field] = value;
    std::ofstream(config) << wrong.dump();
    expect_refused(theirs, AllOf(HasSubstr("/theirs"), HasSubstr(message)));
  }
  std::ofstream(config) << "[]";
  expect_refused(theirs, HasSubstr("config.json: not a JSON object"));
  fs::remove(config);
  expect_refused(theirs, HasSubstr("config.json"));
}

TEST_F(Import, DropoutsThatDifferAreTakenAsNoneAndSaid) {
  const std::string theirs = exported({"--model", "gpt2"});
  json config = read_json(theirs + "/config.json");
  EXPECT_EQ(config.at("attn_pdrop"), 0.1);
  ASSERT_EQ(import(theirs).lines(), Words{});
  EXPECT_THAT(content_of(folder_ / "own/config.cfg"), HasSubstr("dropout = 0.1"));
  fs::remove_all(folder_ / "own");
  config["attn_pdrop"] = 0;
  std::ofstream(theirs + "/config.json") << config.dump();
  const Outcome outcome = import(theirs);
  EXPECT_EQ(outcome.status, 0);
  EXPECT_THAT(outcome.lines(),
              ElementsAre(AllOf(HasSubstr("config.json: `resid_pdrop` 0.1"),
                                HasSubstr("`attn_pdrop` 0: Weft drops with one probability, taken is 0"))));
  EXPECT_THAT(content_of(folder_ / "own/config.cfg"), HasSubstr("dropout = 0\n"));
}

TEST_F(Import, TrainingOnWithWhatTheTensorsDoNotShowIsRefused) {
  ASSERT_EQ(
      import(exported({"--model", "llama", "--kv-heads", "1", "--rotary-theta", "50000", "--norm-eps", "1e-6"})).status,
      0);
  for (const auto& [option, value, message] :
       {std::tuple{"--rotary-theta", "10000", "--rotary-theta: found 10000, the model of "},
        {"--norm-eps", "1e-5", "--norm-eps: found 1e-05"},
        {"--positions", "none", "--positions: found none"},
        {"--heads", "4", "--heads: found 4"}}) {
    const Outcome outcome = run_weft({"train", "--config", folder_ / "own/config.cfg", "--resume", folder_ / "own",
                                      "--out", folder_ / "tuned", "--data", run_.folder() / "data.txt", option, value});
    EXPECT_EQ(outcome.status, 2);
    EXPECT_THAT(outcome.lines(), ElementsAre(HasSubstr(message)));
    EXPECT_FALSE(fs::exists(folder_ / "tuned"));
  }
}

TEST_F(Import, WeightsThatAreNotTheModelsAreRefused) {
  const std::string theirs = exported({"--model", "gpt2"}), weights = theirs + "/model.safetensors";
  fs::copy(weights, folder_ / "right");
  const auto restore = [&] { fs::copy(folder_ / "right", weights, fs::copy_options::overwrite_existing); };
  rewrite(theirs, [](auto& values, auto&) { values.erase("transformer.h.0.mlp.c_fc.bias"); });
  expect_refused(theirs, HasSubstr("model.safetensors: no tensor transformer.h.0.mlp.c_fc.bias; one of [128]"));
  restore();
  rewrite(theirs, [](auto& values, auto& shapes) {
    values["transformer.extra"] = {1};
    shapes["transformer.extra"] = {1};
  });
  expect_refused(theirs, HasSubstr("tensor transformer.extra [1] is not of the model"));
  restore();
  rewrite(theirs, [](auto&, auto& shapes) { shapes["transformer.wpe.weight"] = {16, 64}; });
  expect_refused(theirs, HasSubstr("tensor transformer.wpe.weight: found [16, 64], [32, 32] would be right"));
  restore();
  fs::resize_file(weights, fs::file_size(weights) - 4);
  expect_refused(theirs, HasSubstr("model.safetensors"));
  fs::remove(weights);
  expect_refused(theirs, HasSubstr("neither model.safetensors nor model.safetensors.index.json"));
  expect_refused(folder_ / "nowhere", HasSubstr("nowhere: no such file or folder"));
}

TEST_F(Import, AFolderThatHoldsSomethingIsLeftAlone) {
  const std::string theirs = exported({"--model", "gpt2"});
  fs::create_directory(folder_ / "own");
  std::ofstream(folder_ / "own/mine") << "mine";
  const Outcome outcome = import(theirs);
  EXPECT_EQ(outcome.status, 2);
  EXPECT_THAT(outcome.lines(), ElementsAre(HasSubstr("exists and is not an empty folder")));
  EXPECT_TRUE(fs::exists(folder_ / "own/mine"));
}

}  // namespace
}  // namespace weft::test
