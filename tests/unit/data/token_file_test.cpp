#include "core/data/token_file.hpp"

#include <gtest/gtest.h>

#include <cstring>
#include <random>

#include "core/data/dataset.hpp"
#include "core/data/llmc_header.hpp"
#include "core/data/token_writer.hpp"
#include "tests/fuzz/exercise.hpp"
#include "tests/unit/io/temp_folder.hpp"

namespace weft {
namespace {

using test::TempFolder;
using test::user_error;
using test::write_text;

template <class Element>
std::string raw(std::vector<Element> tokens) {
  return {reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(Element)};
}

std::string header(std::int32_t magic, std::int32_t version, std::int32_t tokens) {
  std::vector<std::int32_t> words(256, 0);
  words[0] = magic;
  words[1] = version;
  words[2] = tokens;
  return raw(words);
}

std::vector<std::int32_t> all(const TokenSource& source) {
  std::vector<std::int32_t> tokens(static_cast<std::size_t>(source.size()));
  source.read(0, tokens);
  return tokens;
}

TEST(TokenFile, TheSideFileIsOfTheBinAlone) {
  const TempFolder folder;
  write_text(folder / "train.bin", raw<std::uint16_t>({1, 2, 3}));
  write_meta(folder / "train.bin",
             {.format = TokenFormat::u16, .vocab_size = 9, .tokens = 3, .text_bytes = 5, .tokenizer = ""});
  write_text(folder / "train.txt", "abcde");
  EXPECT_EQ(all(*open_tokens(folder / "train.bin", {})), (std::vector<std::int32_t>{1, 2, 3}));
  EXPECT_EQ(all(*open_tokens(folder / "train.txt", {})), (std::vector<std::int32_t>{'a', 'b', 'c', 'd', 'e'}));
}

TEST(TokenFile, TextIsWhatNothingSaysTheTokensOf) {
  const TempFolder folder;
  write_text(folder / "a.txt", "It is it");
  write_text(folder / "nano.bin", raw<std::uint16_t>({1, 2}));
  write_text(folder / "llmc", header(20240520, 1, 1) + raw<std::uint16_t>({5}));
  write_text(folder / "made.bin", raw<std::uint16_t>({1}));
  write_meta(folder / "made.bin",
             {.format = TokenFormat::u16, .vocab_size = 9, .tokens = 1, .text_bytes = 5, .tokenizer = ""});
  write_text(folder / "tokenizer.json", R"({"kind": "words", "words": ["<unk>", "<eos>", "it", "is"]})");
  const TokenizerPtr words = load_tokenizer(folder / "tokenizer.json");
  const TokenFileOptions options{.text_tokenizer = words.get()};
  EXPECT_EQ(all(*open_tokens(folder / "a.txt", options)), (std::vector<std::int32_t>{0, 3, 2}));
  EXPECT_EQ(open_tokens(folder / "a.txt", options)->text_bytes(), 8);
  TokenFileOptions bytes = options;
  bytes.format = TokenFormat::bytes;
  EXPECT_EQ(open_tokens(folder / "a.txt", bytes)->size(), 8);
  for (const char* other : {"nano.bin", "llmc", "made.bin"}) {
    EXPECT_FALSE(holds_text(folder / other, {})) << other;
    EXPECT_EQ(all(*open_tokens(folder / other, options)), all(*open_tokens(folder / other))) << other;
  }
  EXPECT_EQ(find_text_file({.data = {folder / "nano.bin"}, .valid = {folder / "a.txt"}, .file = {}}), folder / "a.txt");
  EXPECT_EQ(find_text_file({.data = {folder / "nano.bin", folder / "llmc"}, .valid = {}, .file = {}}), "");
}

TEST(TokenFile, EachFormatIsRecognisedAndReadBack) {
  const TempFolder folder;
  write_text(folder / "a.txt", std::string("h\xff\0i", 4));
  write_text(folder / "nano.bin", raw<std::uint16_t>({1, 65535, 3}));
  write_text(folder / "gpt2.bin", header(20240520, 1, 2) + raw<std::uint16_t>({5, 50256}));
  write_text(folder / "llama", header(20240801, 7, 2) + raw<std::uint32_t>({5, 128000}));
  write_text(folder / "wide", raw<std::uint32_t>({70000, 2}));
  EXPECT_EQ(all(*open_tokens(folder / "a.txt")), (std::vector<std::int32_t>{'h', 255, 0, 'i'}));
  EXPECT_EQ(open_tokens(folder / "a.txt")->vocab_size(), 256);
  EXPECT_EQ(open_tokens(folder / "a.txt")->text_bytes(), 4);
  EXPECT_EQ(all(*open_tokens(folder / "nano.bin")), (std::vector<std::int32_t>{1, 65535, 3}));
  EXPECT_EQ(open_tokens(folder / "nano.bin")->vocab_size(), 0);
  EXPECT_EQ(all(*open_tokens(folder / "gpt2.bin")), (std::vector<std::int32_t>{5, 50256}));
  EXPECT_EQ(all(*open_tokens(folder / "gpt2.bin", {.format = TokenFormat::u16})),
            (std::vector<std::int32_t>{5, 50256}));
  EXPECT_EQ(all(*open_tokens(folder / "llama")), (std::vector<std::int32_t>{5, 128000}));
  EXPECT_EQ(all(*open_tokens(folder / "wide", {.format = TokenFormat::u32})), (std::vector<std::int32_t>{70000, 2}));
  EXPECT_EQ(open_tokens(folder / "nano.bin", {.format = TokenFormat::bytes})->size(), 6);
  EXPECT_EQ(token_format("u32"), TokenFormat::u32);
  EXPECT_NE(user_error([] { token_format("u64"); }).find("u64"), std::string::npos);
}

TEST(TokenFile, ReadsAnyRangeAndRefusesOneOutside) {
  const TempFolder folder;
  write_text(folder / "a.bin", raw<std::uint16_t>({10, 11, 12, 13}));
  const TokenSourcePtr tokens = open_tokens(folder / "a.bin");
  std::vector<std::int32_t> out(2);
  tokens->read(1, out);
  EXPECT_EQ(out, (std::vector<std::int32_t>{11, 12}));
  tokens->read(4, {});
  EXPECT_THROW(tokens->read(3, out), Error);
  EXPECT_THROW(tokens->read(-1, out), Error);
}

TEST(TokenFile, EachKindOfBadFileIsOneLineThatNamesIt) {
  const TempFolder folder;
  const auto pair = raw<std::uint16_t>({1, 2});
  struct Case {
    const char* name;
    std::string content;
    TokenFileOptions options;
    const char* message;
  };
  const std::vector<Case> cases = {
      {"empty.txt", "", {}, "is empty"},
      {"odd.bin", "abc", {}, "no multiple of the 2 bytes"},
      {"wide.bin", "abcdef", {.format = TokenFormat::u32}, "no multiple of the 4 bytes"},
      {"short.bin", header(20240520, 1, 3) + pair, {}, "says 3 tokens, the file holds 2"},
      {"long.bin", header(20240520, 1, 1) + pair, {}, "says 1 tokens, the file holds 2"},
      {"negative.bin", header(20240520, 1, -1) + pair, {}, "the file holds 2"},
      {"none.bin", header(20240520, 1, 0), {}, "no tokens"},
      {"version.bin", header(20240520, 2, 2) + pair, {}, "version 2"},
      {"cut.bin", header(20240520, 1, 2).substr(0, 100), {}, "cut short"},
      {"other.bin", header(20240801, 7, 1) + pair, {.format = TokenFormat::u16}, "4-byte tokens"},
      {"vocab.bin", raw<std::uint16_t>({1, 2, 300, 4}), {.vocab_size = 300}, "token 300 at position 2"},
      {"vocab.txt", "abz", {.vocab_size = 122}, "token 122 at position 2"},
      {"huge.bin",
       raw<std::uint32_t>({1, 0xffffffff}),
       {.format = TokenFormat::u32, .vocab_size = 9},
       "token 4294967295"},
  };
  for (const Case& bad : cases) {
    write_text(folder / bad.name, bad.content);
    const std::string message = user_error([&] { open_tokens(folder / bad.name, bad.options); });
    EXPECT_NE(message.find(bad.message), std::string::npos) << message;
    EXPECT_NE(message.find(bad.name), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
  EXPECT_NE(user_error([&] { open_tokens(folder / "gone"); }).find("does not exist"), std::string::npos);
  EXPECT_NE(user_error([&] { open_tokens(folder.path()); }).find("not a regular file"), std::string::npos);
}

TEST(TokenFile, AFileAboveTheScanLimitIsCheckedWhenItIsRead) {
  const TempFolder folder;
  write_text(folder / "a.bin", raw<std::uint16_t>({1, 2, 300, 4}));
  const TokenSourcePtr tokens = open_tokens(folder / "a.bin", {.vocab_size = 300, .scan_limit = 7});
  std::vector<std::int32_t> out(2);
  tokens->read(0, out);
  EXPECT_NE(user_error([&] { tokens->read(1, out); }).find("token 300 at position 2"), std::string::npos);
}

TEST(TokenFile, ATokenAboveInt32IsRefusedWithoutAVocabularyToo) {
  const TempFolder folder;
  write_text(folder / "a", raw<std::uint32_t>({1, 0x80000000u}));
  const TokenSourcePtr tokens = open_tokens(folder / "a", {.format = TokenFormat::u32});
  EXPECT_NE(user_error([&] { all(*tokens); }).find("token 2147483648"), std::string::npos);
}

TEST(TokenFile, TheWriterMakesLlmcFilesWithASideFile) {
  const TempFolder folder;
  for (const std::int64_t vocab_size : {300, 65536, 65537}) {
    TokenWriter writer(folder / "train.bin", vocab_size, "tokenizer.json");
    writer.write(std::vector<std::int32_t>{1, 299}, 7);
    writer.write(std::vector<std::int32_t>{static_cast<std::int32_t>(vocab_size) - 1}, 3);
    EXPECT_THROW(writer.write(std::vector<std::int32_t>{static_cast<std::int32_t>(vocab_size)}, 1), Error);
    EXPECT_THROW(writer.write(std::vector<std::int32_t>{-1}, 1), Error);
    writer.commit();
    const bool wide = vocab_size > 65536;
    const std::string file = test::read_text(folder / "train.bin");
    EXPECT_EQ(file.size(), 1024u + 3 * (wide ? 4 : 2));
    EXPECT_EQ(file.substr(0, 1024), wide ? header(20240801, 7, 3) : header(20240520, 1, 3));
    const TokenSourcePtr tokens = open_tokens(folder / "train.bin");
    EXPECT_EQ(all(*tokens), (std::vector<std::int32_t>{1, 299, static_cast<std::int32_t>(vocab_size) - 1}));
    EXPECT_EQ(tokens->vocab_size(), vocab_size);
    EXPECT_EQ(tokens->text_bytes(), 10);
  }
}

TEST(TokenFile, ACountAbove31BitsSurvivesTheHeader) {
  const std::int64_t tokens = (std::int64_t{5} << 31) + 123;
  const auto words = detail::make_llmc_header(TokenFormat::u16, tokens);
  EXPECT_EQ(detail::parse_llmc_header("f", std::as_bytes(std::span(words))).tokens, tokens);
}

TEST(TokenFile, ASideFileThatDoesNotFitOrIsDamagedIsRefused) {
  const TempFolder folder;
  write_text(folder / "a.bin", raw<std::uint16_t>({1, 2}));
  write_meta(folder / "a.bin", {TokenFormat::u16, 10, 3, 5, ""});
  EXPECT_NE(user_error([&] { open_tokens(folder / "a.bin"); }).find("prepare it again"), std::string::npos);
  write_meta(folder / "a.bin", {TokenFormat::u16, 10, 2, 5, ""});
  EXPECT_EQ(open_tokens(folder / "a.bin")->vocab_size(), 10);
  for (const char* damaged : {"", "{", "[]", "{\"format\":\"u16\"}",
                              R"({"format":"u8","vocab_size":1,"tokens":2,"text_bytes":1,"tokenizer":""})",
                              R"({"format":"u16","vocab_size":-1,"tokens":2,"text_bytes":1,"tokenizer":""})"}) {
    write_text(folder / "a.meta.json", damaged);
    user_error([&] { open_tokens(folder / "a.bin"); });
  }
}

TEST(TokenFile, RandomMutationsAreReadOrRefusedButNeverCrash) {
  const std::string valid = header(20240520, 1, 20) + raw(std::vector<std::uint16_t>(20, 77));
  const std::string wide = header(20240801, 7, 10) + raw(std::vector<std::uint32_t>(10, 77));
  std::mt19937 random(3);
  for (int round = 0; round < 600; ++round) {
    std::string file = round % 2 == 0 ? valid : wide;
    for (int edits = 0; edits < 3; ++edits) {
      const std::size_t at = random() % 4 == 0 ? random() % file.size() : random() % 16;
      file[at % file.size()] = static_cast<char>(random());
      if (random() % 4 == 0) file.resize(1 + random() % file.size());
    }
    ASSERT_NO_THROW(test::exercise_token_file(std::as_bytes(std::span(file)))) << "round " << round;
  }
}

TEST(Dataset, TheTailOfEachFileIsHeldOut) {
  const TempFolder folder;
  write_text(folder / "a", std::string(100, 'a') + std::string(25, 'v'));
  write_text(folder / "b", std::string(8, 'b') + std::string(2, 'w'));
  const Dataset data =
      open_dataset({.data = {folder / "a", folder / "b"}, .valid = {}, .valid_fraction = 0.2, .file = {}});
  ASSERT_EQ(data.train.size(), 2u);
  EXPECT_EQ(all(*data.train[0]), std::vector<std::int32_t>(100, 'a'));
  EXPECT_EQ(all(*data.valid[0]), std::vector<std::int32_t>(25, 'v'));
  EXPECT_EQ(all(*data.train[1]), std::vector<std::int32_t>(8, 'b'));
  EXPECT_EQ(all(*data.valid[1]), std::vector<std::int32_t>(2, 'w'));
  EXPECT_EQ(data.valid[0]->text_bytes(), 25);
  EXPECT_EQ(data.vocab_size, 256);
  EXPECT_EQ(total_tokens(data.train), 108);
}

TEST(Dataset, ASeparateFileOrNoneServesForValidation) {
  const TempFolder folder;
  write_text(folder / "a", "train text");
  write_text(folder / "v", "valid");
  const Dataset separate =
      open_dataset({.data = {folder / "a"}, .valid = {folder / "v"}, .valid_fraction = 0.5, .file = {}});
  EXPECT_EQ(total_tokens(separate.train), 10);
  EXPECT_EQ(total_tokens(separate.valid), 5);
  const Dataset none = open_dataset({.data = {folder / "a"}, .valid = {}, .valid_fraction = 0, .file = {}});
  EXPECT_TRUE(none.valid.empty());
}

TEST(Dataset, AnUndeclaredVocabularyIsScannedOverAllFiles) {
  const TempFolder folder;
  write_text(folder / "a.bin", raw<std::uint16_t>({1, 40}));
  write_text(folder / "v.bin", raw<std::uint16_t>({1, 90}));
  EXPECT_EQ(open_dataset({.data = {folder / "a.bin"}, .valid = {folder / "v.bin"}, .file = {}}).vocab_size, 91);
}

TEST(Dataset, VocabulariesThatDifferAndBadFractionsAreRefused) {
  const TempFolder folder;
  write_text(folder / "a", "text");
  write_text(folder / "v.bin", raw<std::uint16_t>({1, 300}));
  write_meta(folder / "v.bin", {TokenFormat::u16, 400, 2, 5, ""});
  EXPECT_NE(user_error([&] {
              open_dataset({.data = {folder / "a"}, .valid = {folder / "v.bin"}, .file = {}});
            }).find("256 and 400"),
            std::string::npos);
  std::filesystem::remove(folder / "v.meta.json");
  EXPECT_NE(user_error([&] {
              open_dataset({.data = {folder / "a"}, .valid = {folder / "v.bin"}, .file = {}});
            }).find("token 300"),
            std::string::npos);
  for (const double fraction : {-0.1, 1.0, std::numeric_limits<double>::quiet_NaN()})
    user_error([&] { open_dataset({.data = {folder / "a"}, .valid = {}, .valid_fraction = fraction, .file = {}}); });
  EXPECT_NE(user_error([&] { open_dataset({.data = {folder.path()}, .valid = {}, .file = {}}); }).find("no train.bin"),
            std::string::npos);
}

TEST(TokenSlice, ReadsItsRangeAlone) {
  const TokenSourcePtr whole = memory_tokens("m", "0123456789");
  const TokenSourcePtr part = slice_tokens(whole, 3, 7);
  EXPECT_EQ(all(*part), (std::vector<std::int32_t>{'3', '4', '5', '6'}));
  std::vector<std::int32_t> out(2);
  EXPECT_THROW(part->read(3, out), Error);
  EXPECT_THROW(slice_tokens(whole, 3, 11), Error);
  EXPECT_EQ(scan_vocab(*part), '6' + 1);
}

}  // namespace
}  // namespace weft
