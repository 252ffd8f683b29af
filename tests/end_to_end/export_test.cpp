// A checkpoint as Hugging Face's classes load it (tests/reference/check_hugging_face.py has them do so).
#include <fmt/format.h>
#include <gmock/gmock.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>

#include "core/io/safetensors.hpp"
#include "faults.hpp"

namespace weft::test {
namespace {

using testing::HasSubstr;

std::vector<float> floats(const SafetensorsReader& file, const std::string& name) {
  const auto bytes = file.bytes(file.entry(name));
  std::vector<float> values(bytes.size() / sizeof(float));
  std::memcpy(values.data(), bytes.data(), bytes.size());
  return values;
}

class Export : public testing::Test {
 protected:
  explicit Export(Words options = {}) : run_(std::move(options)) {}

  /// Trains with these options and exports; returns the folder.
  std::string exported(const Words& options, int ranks = 0) {
    Words more = {"--steps", "2"};
    more.insert(more.end(), options.begin(), options.end());
    const Outcome trained = run_.run(ranks, more);
    EXPECT_EQ(trained.status, 0) << trained.err;
    const Outcome outcome = run_weft({"export", run_.out(), "--out", folder_ / "out"});
    EXPECT_EQ(outcome.status, 0) << outcome.err;
    return folder_ / "out";
  }
  SafetensorsReader checkpoint(int part = 0, int parts = 1) const {
    return SafetensorsReader(
        fmt::format("{}/checkpoints/step-00000002/shard-{:05}-of-{:05}.safetensors", run_.out(), part, parts));
  }
  static nlohmann::json config_of(const std::string& folder) {
    return nlohmann::json::parse(std::ifstream(folder + "/config.json"));
  }

  Training run_;
  TemporaryFolder folder_;
};

TEST_F(Export, OfGpt2HasItsMatricesTransposed) {
  const std::string out = exported({"--model", "gpt2"});
  EXPECT_EQ(config_of(out).at("architectures").at(0), "GPT2LMHeadModel");
  const SafetensorsReader theirs(out + "/model.safetensors"), own = checkpoint();
  for (const auto& [name, parameter] : {std::pair{"transformer.h.0.attn.c_attn.weight", "blocks.0.mixer.qkv.weight"},
                                        {"transformer.h.0.mlp.c_proj.weight", "blocks.0.ffn.down.weight"}}) {
    const Shape shape = own.entry(parameter).shape;
    EXPECT_EQ(theirs.entry(name).shape, (Shape{shape[1], shape[0]}));
    const std::vector<float> a = floats(own, parameter), b = floats(theirs, name);
    for (std::int64_t row = 0; row < shape[0]; ++row)
      for (std::int64_t column = 0; column < shape[1]; ++column)
        ASSERT_EQ(a[static_cast<std::size_t>(row * shape[1] + column)],
                  b[static_cast<std::size_t>(column * shape[0] + row)]);
  }
  EXPECT_EQ(floats(own, "embed.tokens.weight"), floats(theirs, "transformer.wte.weight"));
  const Outcome again = run_weft({"export", run_.out(), "--out", out});
  EXPECT_EQ(again.status, 2);
  EXPECT_THAT(again.err, HasSubstr("model.safetensors exists"));
}

TEST_F(Export, OfLlamaCutsItsFusedMatrices) {
  const std::string out = exported({"--model", "llama", "--kv-heads", "1"});
  EXPECT_EQ(config_of(out).at("num_key_value_heads"), 1);
  const SafetensorsReader theirs(out + "/model.safetensors"), own = checkpoint();
  for (const auto& [parameter, names] :
       {std::pair{"mixer.qkv.weight", Words{"self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"}},
        {"ffn.gate_up.weight", Words{"mlp.gate_proj", "mlp.up_proj"}}}) {
    std::vector<float> joined;
    for (const std::string& name : names) {
      const std::vector<float> part = floats(theirs, "model.layers.0." + name + ".weight");
      joined.insert(joined.end(), part.begin(), part.end());
    }
    EXPECT_EQ(floats(own, std::string("blocks.0.") + parameter), joined);
  }
}

TEST_F(Export, HoldsEveryElementOfAModelThatRanksShared) {
  const std::string out = exported({"--model", "llama", "--tp", "2"}, 2);
  std::int64_t elements = 0;
  const SafetensorsReader theirs(out + "/model.safetensors");
  for (const SafetensorsEntry& entry : theirs.entries()) elements += entry.shape.numel();
  std::int64_t expected = 0;
  for (const int part : {0, 1}) {
    const SafetensorsReader own = checkpoint(part, 2);
    for (const SafetensorsEntry& entry : own.entries())
      if (!entry.name.starts_with("optimizer.")) expected += entry.shape.numel();
  }
  EXPECT_EQ(elements, expected);
}

TEST_F(Export, OfBytesHasATokenizerOfBytes) {
  const std::string out = exported({"--model", "llama"});
  const nlohmann::json tokenizer = nlohmann::json::parse(std::ifstream(out + "/tokenizer.json"));
  EXPECT_EQ(tokenizer.at("model").at("vocab").size(), 256u);
  EXPECT_EQ(tokenizer.at("model").at("vocab").at("a"), 'a');
}

TEST_F(Export, ThatADiskInterruptedLeavesNoWeightsAndCanBeRepeated) {
  // Weights of 20 MB where files may have 16: what MPI writes when it starts fits.
  ASSERT_EQ(run_.run(0, {"--steps", "1", "--vocab", "160000"}).status, 0);
  const std::string out = folder_ / "out";
  const std::string command = fmt::format("{} export {} --out {}", weft_path(), run_.out(), out);
  const Outcome full = run_program({"bash", "-c", "trap '' XFSZ; ulimit -f 16384; exec " + command});
  EXPECT_EQ(full.status, 3);
  EXPECT_THAT(full.err, HasSubstr("model.safetensors"));
  EXPECT_TRUE(std::filesystem::exists(out + "/config.json"));
  EXPECT_EQ(folder_.entries(), (Words{"out", "out/config.json", "out/tokenizer.json", "out/tokenizer_config.json"}));
  const Outcome again = run_program({"bash", "-c", command});
  EXPECT_EQ(again.status, 0) << again.err;
  EXPECT_TRUE(std::filesystem::exists(out + "/model.safetensors"));
}

TEST_F(Export, OfAModelThatHasNoClassThereIsRefusedBeforeAnythingIsWritten) {
  for (const Words& options : {Words{"--model", "sru"}, Words{"--model", "gpt2", "--positions", "rotary"}}) {
    Training other;
    Words more = {"--steps", "1"};
    more.insert(more.end(), options.begin(), options.end());
    ASSERT_EQ(other.run(0, more).status, 0);
    const Outcome outcome = run_weft({"export", other.out(), "--out", folder_ / "none"});
    EXPECT_EQ(outcome.status, 2);
    EXPECT_THAT(outcome.lines(), testing::ElementsAre(HasSubstr("Hugging Face's classes are there for")));
    EXPECT_FALSE(std::filesystem::exists(folder_ / "none"));
  }
}

}  // namespace
}  // namespace weft::test
