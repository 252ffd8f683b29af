// Text that is encoded in parts has the tokens of the whole.
#include <gtest/gtest.h>

#include <nlohmann/json.hpp>
#include <random>

#include "core/data/byte_level_bpe.hpp"
#include "core/data/dataset.hpp"
#include "core/data/prepare.hpp"
#include "tests/unit/io/temp_folder.hpp"

namespace weft {
namespace {

using test::TempFolder;

std::vector<std::int32_t> encode(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::int32_t> tokens;
  tokenizer.encode(text, tokens);
  return tokens;
}

std::string random_text(std::mt19937& random, unsigned longest) {
  const std::vector<std::string> parts = {" ",  "  ", "\n",  "\r\n", "\t",  "a",  "se",  "'s",    "'r",      "é",
                                          "世", "　", "123", "!",    "...", "\n", " \n", "<|end", "<|end|>", "\xe4"};
  std::string text;
  while (text.size() < longest) text += parts[random() % parts.size()];
  return text;
}

TokenizerPtr from_file(const std::string& name, const std::vector<std::string>& added = {}) {
  auto content = nlohmann::json::parse(test::read_text(WEFT_REFERENCE_DATA "/tokenizer-" + name + ".json"));
  for (const std::string& text : added) {
    const std::size_t id = 800 + content["added_tokens"].size();
    content["added_tokens"].push_back({{"id", id}, {"content", text}, {"normalized", added[0] != text}});
  }
  return detail::byte_level_bpe("tokenizer.json", content.dump());
}

TokenizerPtr trained(TokenizerKind kind) {
  std::mt19937 random(5);
  const std::string text = random_text(random, 4000);
  return train_tokenizer({.kind = kind, .vocab_size = kind == TokenizerKind::words ? 0 : 300},
                         [&](const std::function<void(std::string_view)>& each) { each(text); });
}

struct PartedCase {
  std::string name;
  std::function<TokenizerPtr()> make;
};

void PrintTo(const PartedCase& one, std::ostream* out) { *out << one.name; }

std::vector<PartedCase> parted_cases() {
  std::vector<PartedCase> cases = {{"bytes", [] { return byte_tokenizer(); }},
                                   {"words", [] { return trained(TokenizerKind::words); }},
                                   {"gpt2", [] { return from_file("gpt2"); }},
                                   {"llama3", [] { return from_file("llama3"); }},
                                   {"gpt2_with_white_tokens",
                                    [] {
                                      return from_file("gpt2", {"  ", "a \n", "\n\n\n", "! a"});
                                    }},
                                   {"llama3_with_white_tokens", [] {
                                      return from_file("llama3", {"  ", "a \n", "\n\n\n", "! a"});
                                    }}};
  if (WEFT_TEST_SENTENCEPIECE) cases.push_back({"bpe", [] { return trained(TokenizerKind::bpe); }});
  return cases;
}

class PartedText : public testing::TestWithParam<PartedCase> {};

TEST_P(PartedText, HasTheTokensOfTheWhole) {
  const TokenizerPtr tokenizer = GetParam().make();
  std::mt19937 random(11);
  std::size_t places = 0, parted = 0;
  for (int round = 0; round < 1500; ++round) {
    const std::string text = random_text(random, 1 + random() % 24);
    const std::vector<std::int32_t> whole = encode(*tokenizer, text);
    for (std::size_t at = 1; at < text.size(); ++at) {
      ++places;
      if (!tokenizer->parts_at(text, at)) continue;
      ++parted;
      std::vector<std::int32_t> tokens = encode(*tokenizer, text.substr(0, at));
      tokenizer->encode(text.substr(at), tokens);
      ASSERT_EQ(tokens, whole) << nlohmann::json(text).dump(-1, ' ', true, nlohmann::json::error_handler_t::replace)
                               << " at " << at;
    }
  }
  EXPECT_GT(parted * 20, places) << "too few places for long texts";
}

TEST_P(PartedText, IsPreparedInPiecesAsAWhole) {
  const TempFolder folder;
  const TokenizerPtr tokenizer = GetParam().make();
  std::mt19937 random(12);
  const std::string text = random_text(random, 600);
  test::write_text(folder / "text.txt", text);
  tokenizer->save(folder / tokenizer->file_name());
  for (const std::size_t bytes : {1, 2, 7, 64, 1000}) {
    PrepareOptions options;
    options.inputs = {folder / "text.txt"};
    options.valid_fraction = 0;
    options.output = folder / "out";
    options.existing = ExistingOutput::replace;
    options.tokenizer = folder / tokenizer->file_name();
    options.piece_bytes = bytes;
    std::int64_t pieces = 0;
    options.progress = [&](std::int64_t, std::int64_t) { ++pieces; };
    prepare(options);
    EXPECT_GT(pieces, bytes > text.size() ? 0 : 3) << bytes;
    const TokenSourcePtr made = open_tokens(folder / "out/train.bin");
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(made->size()));
    made->read(0, tokens);
    EXPECT_EQ(tokens, encode(*tokenizer, text)) << bytes;
  }
}

INSTANTIATE_TEST_SUITE_P(Tokenizers, PartedText, testing::ValuesIn(parted_cases()),
                         [](const auto& row) { return row.param.name; });

}  // namespace
}  // namespace weft
