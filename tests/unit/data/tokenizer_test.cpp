#include "core/data/tokenizer.hpp"

#include <gtest/gtest.h>

#include <random>

#include "core/base/error.hpp"
#include "core/data/utf8.hpp"
#include "tests/unit/io/temp_folder.hpp"

namespace weft {
namespace {

using test::TempFolder;
using test::user_error;

constexpr bool has_sentencepiece = WEFT_TEST_SENTENCEPIECE;

TextPieces one_piece(std::string text) {
  return [text = std::move(text)](const std::function<void(std::string_view)>& each) { each(text); };
}

std::string code_text() {
  std::mt19937 random(1);
  std::vector<std::string> words = {"{", "}", "größe", "→", "<class T>", "std::vector"};
  for (int word = 0; word < 60; ++word) {
    words.emplace_back();
    for (unsigned letters = 3 + random() % 8; letters > 0; --letters)
      words.back() += "abcdefghijklmnopqrstuvwxyz_"[random() % 27];
  }
  std::string text;
  for (int line = 0; line < 600; ++line) {
    text += std::string(random() % 3 * 2, ' ');
    if (random() % 5 == 0) text += '\t';
    for (unsigned count = random() % 8; count > 0; --count) text += words[random() % words.size()] + " ";
    text += '\n';
  }
  return text;
}

std::vector<std::int32_t> encode(const Tokenizer& tokenizer, std::string_view text) {
  std::vector<std::int32_t> tokens;
  tokenizer.encode(text, tokens);
  return tokens;
}

std::string stream(const Tokenizer& tokenizer, const std::vector<std::int32_t>& tokens, bool check_utf8) {
  StreamingDecoder decoder(tokenizer);
  std::string text;
  for (const std::int32_t token : tokens) {
    const std::string added = decoder.push(token);
    if (check_utf8) {
      EXPECT_TRUE(detail::is_utf8(added)) << "half a character is given out";
    }
    text += added;
  }
  return text + decoder.finish();
}

TEST(ByteTokenizer, KeepsEveryByte) {
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  const TokenizerPtr tokenizer = byte_tokenizer();
  const auto tokens = encode(*tokenizer, all);
  EXPECT_EQ(tokens[200], 200);
  EXPECT_EQ(tokenizer->decode(tokens), all);
  EXPECT_EQ(stream(*tokenizer, tokens, false), all);
  EXPECT_EQ(stream(*tokenizer, encode(*tokenizer, "aß→𝄞z"), true), "aß→𝄞z");
  user_error([&] { tokenizer->decode(std::vector<std::int32_t>{256}); });
}

TEST(WordTokenizer, FollowsTheWikiTextConvention) {
  const TokenizerPtr tokenizer =
      train_tokenizer({.kind = TokenizerKind::words}, one_piece(" = Title = \n\n the cat <unk> the dog \n the end"));
  // Two specials, then by count: the 3, = 2, and the rest once.
  EXPECT_EQ(tokenizer->vocab_size(), 2 + 6);
  EXPECT_EQ(encode(*tokenizer, "the <unk> cow = \n\n"), (std::vector<std::int32_t>{2, 0, 0, 3, 1, 1}));
  EXPECT_EQ(tokenizer->decode(std::vector<std::int32_t>{3, 2, 1, 1, 2, 0}), "= the\n\nthe <unk>");
  user_error([&] { tokenizer->decode(std::vector<std::int32_t>{8}); });
}

TEST(WordTokenizer, LimitsAndRareWordsShrinkTheVocabulary) {
  const std::string text = "a a a b b c\n\xff\xff \xff\xff\n";
  EXPECT_EQ(train_tokenizer({.kind = TokenizerKind::words, .vocab_size = 4}, one_piece(text))->vocab_size(), 4);
  EXPECT_EQ(train_tokenizer({.kind = TokenizerKind::words, .min_count = 3}, one_piece(text))->vocab_size(), 3);
  EXPECT_EQ(train_tokenizer({.kind = TokenizerKind::words}, one_piece(text))->vocab_size(), 5)
      << "invalid UTF-8 is <unk>";
  user_error([&] { train_tokenizer({.kind = TokenizerKind::words}, one_piece(" \n")); });
}

TEST(SentencePiece, GivesTheTextBackUnchangedAndIsSmallerThanBytes) {
  const std::string text = code_text();
  for (const TokenizerKind kind : {TokenizerKind::bpe, TokenizerKind::unigram}) {
    const TokenizerTraining training = {.kind = kind, .vocab_size = 370};
    if (!has_sentencepiece) {
      EXPECT_NE(user_error([&] { train_tokenizer(training, one_piece(text)); }).find("sentencepiece"),
                std::string::npos);
      continue;
    }
    const TokenizerPtr tokenizer = train_tokenizer(training, one_piece(text));
    EXPECT_EQ(tokenizer->vocab_size(), 370);
    const auto tokens = encode(*tokenizer, text);
    EXPECT_EQ(tokenizer->decode(tokens), text);
    EXPECT_LT(tokens.size(), text.size() * 4 / 5);
    EXPECT_EQ(stream(*tokenizer, tokens, true), text);
    const std::string unseen = "  leading, \t tabs\n\n  中文 𝄞 \r\n and  double  spaces  ";
    EXPECT_EQ(tokenizer->decode(encode(*tokenizer, unseen)), unseen);
    EXPECT_EQ(stream(*tokenizer, encode(*tokenizer, unseen), true), unseen);
    EXPECT_EQ(encode(*tokenizer, ""), std::vector<std::int32_t>{});
    user_error([&] { tokenizer->decode(std::vector<std::int32_t>{370}); });
  }
}

TEST(SentencePiece, PiecesThatEndAfterALineGiveTheSameTokens) {
  if (!has_sentencepiece) return;
  const std::string text = code_text();
  const TokenizerPtr tokenizer = train_tokenizer({.kind = TokenizerKind::bpe, .vocab_size = 320}, one_piece(text));
  std::vector<std::int32_t> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = text.find('\n', begin) + 1;
    tokenizer->encode(std::string_view(text).substr(begin, end - begin), lines);
    begin = end;
  }
  EXPECT_EQ(lines, encode(*tokenizer, text));
}

TEST(SentencePiece, AVocabularyThatTheTextCannotFillIsOneClearLine) {
  if (!has_sentencepiece) return;
  for (const std::int64_t vocab_size : {100, 30'000}) {
    const std::string message = user_error([&] {
      train_tokenizer({.kind = TokenizerKind::bpe, .vocab_size = vocab_size}, one_piece("some short text\n"));
    });
    EXPECT_NE(message.find(std::to_string(vocab_size)), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
  user_error([&] { train_tokenizer({.kind = TokenizerKind::bpe}, one_piece("text\n")); });
}

TEST(Tokenizer, ASavedTokenizerGivesTheSameTokens) {
  const TempFolder folder;
  const std::string text = code_text();
  for (const TokenizerKind kind :
       {TokenizerKind::bytes, TokenizerKind::words, TokenizerKind::bpe, TokenizerKind::unigram}) {
    if (!has_sentencepiece && (kind == TokenizerKind::bpe || kind == TokenizerKind::unigram)) continue;
    const TokenizerPtr tokenizer = train_tokenizer({.kind = kind, .vocab_size = 370}, one_piece(text));
    const std::filesystem::path path = folder / tokenizer->file_name();
    tokenizer->save(path);
    const TokenizerPtr loaded = load_tokenizer(path);
    EXPECT_EQ(loaded->kind(), tokenizer->kind());
    EXPECT_EQ(loaded->vocab_size(), tokenizer->vocab_size());
    EXPECT_EQ(encode(*loaded, text), encode(*tokenizer, text));
    EXPECT_EQ(tokenizer_kind(name_of(kind)), kind);
  }
}

TEST(Tokenizer, DamagedFilesAreRefusedByName) {
  const TempFolder folder;
  const std::vector<std::string> damaged = {"",
                                            "not a model",
                                            "{",
                                            "{}",
                                            R"({"kind":"letters"})",
                                            R"({"kind":"words"})",
                                            R"({"kind":"words","words":["a"]})",
                                            R"({"kind":"words","words":["<unk>","<eos>","a","a"]})",
                                            R"({"kind":"words","words":["<unk>","<eos>",1]})"};
  for (const std::string& content : damaged) {
    test::write_text(folder / "tok.json", content);
    const std::string message = user_error([&] { load_tokenizer(folder / "tok.json"); });
    EXPECT_NE(message.find("tok.json"), std::string::npos) << message;
  }
  user_error([&] { load_tokenizer(folder / "none"); });
  user_error([] { tokenizer_kind("letters"); });
}

TEST(Utf8, TellsWholeFromIncompleteAndInvalid) {
  EXPECT_TRUE(detail::is_utf8("aß→𝄞"));
  for (const char* bad :
       {"\xff", "\xc3", "\xc0\x80", "\xe0\x80\x80", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\x80", "a\xe2\x86"})
    EXPECT_FALSE(detail::is_utf8(bad));
  EXPECT_EQ(detail::incomplete_utf8_tail(""), 0u);
  EXPECT_EQ(detail::incomplete_utf8_tail("a\xc3"), 1u);
  EXPECT_EQ(detail::incomplete_utf8_tail("a\xe2\x86"), 2u);
  EXPECT_EQ(detail::incomplete_utf8_tail("\xf0\x9d\x84"), 3u);
  EXPECT_EQ(detail::incomplete_utf8_tail("aß"), 0u);
  EXPECT_EQ(detail::incomplete_utf8_tail("\x80\x80"), 0u);
  EXPECT_EQ(detail::incomplete_utf8_tail("\xff"), 0u);
}

}  // namespace
}  // namespace weft
