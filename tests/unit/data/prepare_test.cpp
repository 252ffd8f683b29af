#include "core/data/prepare.hpp"

#include <gtest/gtest.h>

#include <cerrno>

#include "core/base/error.hpp"
#include "core/data/dataset.hpp"
#include "tests/unit/io/temp_folder.hpp"

namespace weft {
namespace {

using test::TempFolder;
using test::user_error;
using test::write_text;

std::string lines(int first, int last) {
  std::string text;
  for (int line = first; line < last; ++line) text += fmt::format("line {} of the text\n", line);
  return text;
}

std::string decoded(const TokenSources& sources, const Tokenizer& tokenizer) {
  std::string text;
  for (const TokenSourcePtr& source : sources) {
    std::vector<std::int32_t> tokens(static_cast<std::size_t>(source->size()));
    source->read(0, tokens);
    text += tokenizer.decode(tokens);
  }
  return text;
}

// Fails writes from the n-th on, as a full disk does.
class FullDisk final : public FileSystem {
 public:
  explicit FullDisk(int writes) : left_(writes) {}
  void write(int descriptor, const std::filesystem::path& path, std::span<const std::byte> bytes) const override {
    if (left_-- <= 0) throw IoError("write", path, ENOSPC);
    FileSystem::write(descriptor, path, bytes);
  }

 private:
  mutable int left_;
};

TEST(Prepare, EveryTokenizersOutputOpensAndGivesTheTextBack) {
  const TempFolder folder;
  const std::string text = lines(0, 3000);
  write_text(folder / "a.txt", text);
  for (const TokenizerKind kind : {TokenizerKind::bytes, TokenizerKind::words, TokenizerKind::bpe}) {
    if (kind == TokenizerKind::bpe && !WEFT_TEST_SENTENCEPIECE) continue;
    PrepareOptions options;
    options.inputs = {folder / "a.txt"};
    options.output = folder / std::string(name_of(kind));
    options.training = {.kind = kind, .vocab_size = kind == TokenizerKind::words ? 0 : 300};
    std::int64_t done = 0, total = 0;
    options.progress = [&](std::int64_t now, std::int64_t all) {
      EXPECT_GT(now, done);
      done = now;
      total = all;
    };
    const PrepareResult result = prepare(options);
    EXPECT_EQ(done, total);
    EXPECT_EQ(result.train_bytes + result.valid_bytes, static_cast<std::int64_t>(text.size()));
    EXPECT_NEAR(static_cast<double>(result.valid_bytes) / static_cast<double>(text.size()), 0.1, 0.001);

    const Dataset data = open_dataset({.data = {options.output}, .valid = {}, .file = {}});
    ASSERT_EQ(data.valid.size(), 1u);
    EXPECT_EQ(data.vocab_size, result.vocab_size);
    EXPECT_EQ(total_tokens(data.train), result.train_tokens);
    EXPECT_EQ(total_tokens(data.valid), result.valid_tokens);
    EXPECT_EQ(data.train[0]->text_bytes(), result.train_bytes);
    const TokenizerPtr tokenizer = load_tokenizer(data.tokenizer);
    EXPECT_EQ(tokenizer->vocab_size(), data.vocab_size);
    EXPECT_EQ(find_tokenizer_file({.data = {options.output}, .valid = {}, .file = {}}), data.tokenizer);
    const std::string train = decoded(data.train, *tokenizer), valid = decoded(data.valid, *tokenizer);
    EXPECT_EQ(train.back(), '\n') << "the cut stands after a line";
    if (kind != TokenizerKind::words) {
      EXPECT_EQ(train + valid, text);
    }
  }
}

TEST(Prepare, TheTokenizerNeverSeesTheValidationText) {
  const TempFolder folder;
  write_text(folder / "a.txt", "one two\nthree four\nfive six\nseven eight\nsecret words\n");
  PrepareOptions options;
  options.inputs = {folder / "a.txt"};
  options.output = folder / "out";
  options.valid_fraction = 0.3;
  options.training.kind = TokenizerKind::words;
  EXPECT_EQ(prepare(options).vocab_size, 2 + 8);
  EXPECT_EQ(test::read_text(folder / "out/tokenizer.json").find("secret"), std::string::npos);
}

TEST(Prepare, ManyInputsAndASavedTokenizerAndTextWithoutLines) {
  const TempFolder folder;
  write_text(folder / "a.txt", lines(0, 50));
  write_text(folder / "b.txt", std::string(3'000'000, 'x'));
  write_text(folder / "v.txt", "valid\n");
  PrepareOptions options;
  options.inputs = {folder / "a.txt", folder / "b.txt"};
  options.valid_inputs = {folder / "v.txt"};
  options.output = folder / "new/parent/out";
  PrepareResult result = prepare(options);
  EXPECT_EQ(result.train_tokens, 3'000'000 + static_cast<std::int64_t>(lines(0, 50).size()));
  EXPECT_EQ(result.valid_tokens, 6);
  options.tokenizer = folder / "new/parent/out/tokenizer.json";
  options.output = folder / "again";
  result = prepare(options);
  EXPECT_EQ(result.valid_tokens, 6);
  EXPECT_EQ(test::read_text(folder / "again/train.bin"), test::read_text(folder / "new/parent/out/train.bin"));
}

TEST(Prepare, AFileOfOneLineHasValidationText) {
  const TempFolder folder;
  std::string line;
  for (int word = 0; word < 1000; ++word) line += fmt::format("word{} ", word);
  write_text(folder / "line.txt", line + "\n");
  PrepareOptions options;
  options.inputs = {folder / "line.txt"};
  options.output = folder / "line";
  options.training = {.kind = TokenizerKind::words, .vocab_size = 0};
  const PrepareResult result = prepare(options);
  EXPECT_NEAR(static_cast<double>(result.valid_bytes) / static_cast<double>(line.size()), 0.1, 0.01);
}

TEST(Prepare, TextWithoutLinesIsCutBetweenWords) {
  const TempFolder folder;
  std::string text;
  while (text.size() < std::size_t{3} << 20) text += "seven letters ";
  write_text(folder / "text8", text);
  PrepareOptions options;
  options.inputs = {folder / "text8"};
  options.output = folder / "out";
  options.training = {.kind = TokenizerKind::words, .vocab_size = 0};
  const std::int64_t kinds = prepare(options).vocab_size;
  // No piece of a word becomes a word of its own: more of the text brings no more.
  write_text(folder / "short", text.substr(0, 1400));
  options.inputs = {folder / "short"};
  options.valid_fraction = 0;
  options.output = folder / "few";
  EXPECT_EQ(kinds, prepare(options).vocab_size);
}

TEST(Prepare, BadInputIsRefusedBeforeAnythingIsWritten) {
  const TempFolder folder;
  write_text(folder / "a.txt", lines(0, 50));
  write_text(folder / "empty.txt", "");
  std::filesystem::create_directory(folder / "full");
  write_text(folder / "full/notes.txt", "mine");
  PrepareOptions good;
  good.inputs = {folder / "a.txt"};
  good.output = folder / "out";
  const auto refused = [](PrepareOptions options, const char* part) {
    const std::string message = user_error([&] { prepare(options); });
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  PrepareOptions bad = good;
  bad.inputs.push_back(folder / "gone.txt");
  refused(bad, "gone.txt");
  bad = good;
  bad.inputs = {folder / "empty.txt"};
  refused(bad, "empty.txt");
  bad = good;
  bad.valid_fraction = 1;
  refused(bad, "fraction");
  bad = good;
  bad.output = folder / "a.txt";
  refused(bad, "no folder");
  bad.output = folder / "full";
  refused(bad, "not empty");
  bad.existing = ExistingOutput::replace;
  refused(bad, "notes.txt");
  EXPECT_EQ(test::read_text(folder / "full/notes.txt"), "mine");
  EXPECT_FALSE(std::filesystem::exists(folder / "out"));
}

TEST(Prepare, AFullDiskLeavesTheOldOutputWholeAndNothingElse) {
  const TempFolder folder;
  write_text(folder / "a.txt", lines(0, 50));
  PrepareOptions options;
  options.inputs = {folder / "a.txt"};
  options.output = folder / "out";
  prepare(options);
  const std::string before = test::read_text(folder / "out/train.bin");
  write_text(folder / "a.txt", lines(100, 150));
  options.existing = ExistingOutput::replace;
  for (int writes = 0; writes < 5; ++writes) {
    EXPECT_THROW(prepare(options, FullDisk(writes)), IoError) << writes;
    EXPECT_EQ(test::read_text(folder / "out/train.bin"), before);
    EXPECT_EQ(FileSystem::posix().list(folder.path()).size(), 2u) << "a partial folder stays";
  }
  prepare(options);
  EXPECT_NE(test::read_text(folder / "out/train.bin"), before);
}

}  // namespace
}  // namespace weft
