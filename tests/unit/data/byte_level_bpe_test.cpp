// Byte-level BPE against tokens of the package tokenizers (tests/reference/check_tokenizers.py made them).
#include "core/data/byte_level_bpe.hpp"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>
#include <random>

#include "core/base/error.hpp"
#include "tests/fuzz/exercise.hpp"
#include "tests/fuzz/json_mutation.hpp"
#include "tests/unit/io/temp_folder.hpp"

namespace weft {
namespace {

using nlohmann::json;
using test::TempFolder;
using test::user_error;
using testing::HasSubstr;
using Ids = std::vector<std::int32_t>;

std::string text_of(const std::string& name) { return test::read_text(WEFT_REFERENCE_DATA "/" + name); }

Ids encoded(const Tokenizer& tokenizer, std::string_view text) {
  Ids ids;
  tokenizer.encode(text, ids);
  return ids;
}

class ByteLevelBpe : public testing::TestWithParam<std::string> {
 protected:
  std::string file() const { return text_of("tokenizer-" + GetParam() + ".json"); }
  TokenizerPtr tokenizer() const { return detail::byte_level_bpe("tokenizer.json", file()); }
};

TEST_P(ByteLevelBpe, HasThePackagesTokensForOddText) {
  const TokenizerPtr own = tokenizer();
  const json cases = json::parse(text_of("tokenizer-" + GetParam() + "-cases.json"));
  ASSERT_GT(cases.size(), 50u);
  for (const json& one : cases) {
    const auto text = one.at("text").get<std::string>();
    EXPECT_EQ(encoded(*own, text), one.at("ids").get<Ids>()) << one.at("text").dump();
    EXPECT_EQ(own->decode(one.at("ids").get<Ids>()), text);
  }
}

TEST_P(ByteLevelBpe, GivesEveryByteBackWholeAndOneTokenAtATime) {
  const TokenizerPtr own = tokenizer();
  std::mt19937 random(3);
  for (int round = 0; round < 200; ++round) {
    std::string text;
    for (unsigned size = random() % 60; size > 0; --size)
      text += static_cast<char>(random() % 3 == 0 ? random() % 256 : " a\n'sé1"[random() % 8]);
    const Ids ids = encoded(*own, text);
    EXPECT_EQ(own->decode(ids), text);
    StreamingDecoder stream(*own);
    std::string streamed;
    for (const std::int32_t id : ids) streamed += stream.push(id);
    EXPECT_EQ(streamed + stream.finish(), text);
  }
}

TEST_P(ByteLevelBpe, MergesMayBeTextsOrPairsAndTheFileIsSavedAsItWas) {
  json content = json::parse(file());
  for (json& merge : content["model"]["merges"])
    if (merge.is_array()) merge = merge[0].get<std::string>() + " " + merge[1].get<std::string>();
  const TempFolder folder;
  test::write_text(folder / "texts.json", content.dump());
  const TokenizerPtr other = load_tokenizer(folder / "texts.json");
  const std::string text = "It's a test of 12345 words, größer\n\n als <|endoftext|> 世界";
  EXPECT_EQ(encoded(*other, text), encoded(*tokenizer(), text));
  tokenizer()->save(folder / "saved.json");
  EXPECT_EQ(test::read_text(folder / "saved.json"), file());
}

INSTANTIATE_TEST_SUITE_P(Expressions, ByteLevelBpe, testing::Values("gpt2", "llama3"));

TEST(ByteLevelFile, WhatItWouldNotFollowIsRefusedByName) {
  const json right = json::parse(text_of("tokenizer-llama3.json"));
  struct Case {
    std::string pointer;
    json value;
    std::string message;
  };
  for (const auto& [pointer, value, message] : std::vector<Case>{
           {"/normalizer", {{"type", "NFC"}}, "`normalizer`: found {\"type\":\"NFC\"}, null would be right"},
           {"/model/type", "Unigram", "`model.type`: found \"Unigram\", \"BPE\" would be right"},
           {"/model/dropout", 0.5, "`model.dropout`: found 0.5"},
           {"/model/byte_fallback", true, "`model.byte_fallback`: found true"},
           {"/model/merges/0", json::array({"a", "no such"}), "`model.merges[0]`"},
           {"/model/vocab/a", 1 << 30, "found 1073741824, a number from 0 to"},
           {"/model/vocab/a", -1, "found -1, a number from 0 to"},
           {"/model/vocab/a", right["model"]["vocab"]["b"], "a number that no other token has would be right"},
           {"/decoder/type", "WordPiece", "`decoder.type`: found \"WordPiece\", \"ByteLevel\""},
           {"/pre_tokenizer/pretokenizers/0/pattern/Regex", "\\w+", "the expression of GPT-2, Llama 3 or Qwen 2"},
           {"/pre_tokenizer/pretokenizers/1/add_prefix_space", true, "add_prefix_space`: found true"},
           {"/pre_tokenizer", nullptr, "`pre_tokenizer`: found null, an object would be right"},
           {"/added_tokens/0/lstrip", true, "`added_tokens[0].lstrip`: found true"},
           {"/added_tokens/0/content", "", "`added_tokens[0].content`"}}) {
    json wrong = right;
    wrong[json::json_pointer(pointer)] = value;
    EXPECT_THAT(user_error([&] { detail::byte_level_bpe("FILE", wrong.dump()); }),
                testing::AllOf(HasSubstr("file 'FILE'"), HasSubstr(message)))
        << pointer;
  }
  json without = right;
  without["model"]["vocab"].erase("!");
  EXPECT_THAT(user_error([&] { detail::byte_level_bpe("FILE", without.dump()); }), HasSubstr("a token ! for byte 33"));
  EXPECT_THAT(user_error([&] { detail::byte_level_bpe("FILE", right.dump().substr(0, 900)); }), HasSubstr("damaged"));
}

TEST(ByteLevelFile, MutatedIsRefusedOrGivesEveryTextBack) {
  const json files[] = {json::parse(text_of("tokenizer-gpt2.json")), json::parse(text_of("tokenizer-llama3.json")),
                        json::parse(detail::byte_level_json())};
  std::mt19937 random(17);
  int accepted = 0;
  constexpr int rounds = 900;
  for (int round = 0; round < rounds; ++round) {
    const std::string text = test::mutated(files[round % 3], random);
    ASSERT_NO_THROW(accepted += test::exercise_tokenizer(std::as_bytes(std::span(text)))) << "round " << round;
  }
  EXPECT_GT(accepted, rounds / 20);
  EXPECT_LT(accepted, rounds / 2);
}

TEST(ByteLevelFile, NestedDeeperThanTheStackIsRefused) {
  for (const auto& [open, close] : {std::pair{"[", "]"}, {R"({"a":)", "}"}}) {
    std::string text = R"({"normalizer":)" + test::nested(open, close) + "}";
    EXPECT_THAT(user_error([&] { detail::byte_level_bpe("FILE", text); }), HasSubstr("`normalizer`: found"));
  }
}

TEST(ByteLevelFile, OfBytesHasTokenIForByteI) {
  const TokenizerPtr bytes = detail::byte_level_bpe("bytes", detail::byte_level_json());
  EXPECT_EQ(bytes->vocab_size(), 256);
  EXPECT_TRUE(bytes->is_bytes());
  EXPECT_FALSE(detail::byte_level_bpe("gpt2", text_of("tokenizer-gpt2.json"))->is_bytes());
  std::string text;
  for (int byte = 255; byte >= 0; --byte) text += static_cast<char>(byte);
  Ids expected(256);
  for (int i = 0; i < 256; ++i) expected[static_cast<std::size_t>(i)] = 255 - i;
  EXPECT_EQ(encoded(*bytes, text), expected);
}

}  // namespace
}  // namespace weft
