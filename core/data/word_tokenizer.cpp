#include "core/data/word_tokenizer.hpp"

#include <algorithm>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "core/base/error.hpp"
#include "core/data/utf8.hpp"
#include "core/io/atomic_file.hpp"

namespace weft::detail {
namespace {

constexpr std::int32_t unknown_token = 0;
constexpr std::int32_t end_of_line_token = 1;
constexpr std::string_view unknown_word = "<unk>";
constexpr std::string_view end_of_line_word = "<eos>";
constexpr std::string_view blanks = " \t\r\v\f";

struct TextHash {
  using is_transparent = void;
  std::size_t operator()(std::string_view text) const { return std::hash<std::string_view>()(text); }
};
template <class Value>
using WordMap = std::unordered_map<std::string, Value, TextHash, std::equal_to<>>;

// Calls `word` for each word and `line_end` for each newline.
template <class Word, class LineEnd>
void split(std::string_view text, Word word, LineEnd line_end) {
  while (!text.empty()) {
    if (text[0] == '\n') {
      line_end();
      text.remove_prefix(1);
      continue;
    }
    text.remove_prefix(std::min(text.find_first_not_of(blanks), text.size()));
    const std::size_t end = std::min({text.find_first_of(blanks), text.find('\n'), text.size()});
    if (end > 0) word(text.substr(0, end));
    text.remove_prefix(end);
  }
}

class WordTokenizer final : public Tokenizer {
 public:
  WordTokenizer(const std::string& file, std::vector<std::string> words) : words_(std::move(words)) {
    if (words_.size() < 2 || words_[0] != unknown_word || words_[1] != end_of_line_word)
      fail_user("file '{}': a word tokenizer begins with {} and {}", file, unknown_word, end_of_line_word);
    for (std::size_t i = 0; i < words_.size(); ++i)
      if (!index_.emplace(words_[i], static_cast<std::int32_t>(i)).second)
        fail_user("file '{}': the word at {} appears twice", file, i);
  }

  std::string_view kind() const override { return "words"; }
  std::int64_t vocab_size() const override { return static_cast<std::int64_t>(words_.size()); }
  std::string_view file_name() const override { return "tokenizer.json"; }

  void encode(std::string_view text, std::vector<std::int32_t>& tokens) const override {
    split(
        text,
        [&](std::string_view word) {
          const auto found = index_.find(word);
          tokens.push_back(found == index_.end() ? unknown_token : found->second);
        },
        [&] { tokens.push_back(end_of_line_token); });
  }

  bool parts_at(std::string_view text, std::size_t position) const override {
    const auto is_white = [](char c) { return c == '\n' || blanks.find(c) != std::string_view::npos; };
    return is_white(text[position - 1]) || is_white(text[position]);
  }

  std::string decode(std::span<const std::int32_t> tokens) const override {
    std::string text;
    for (const std::int32_t token : tokens) {
      if (token < 0 || token >= vocab_size())
        fail_user("token {} is outside the tokenizer's vocabulary of {}", token, vocab_size());
      if (token == end_of_line_token) {
        text += '\n';
        continue;
      }
      if (!text.empty() && text.back() != '\n') text += ' ';
      text += words_[static_cast<std::size_t>(token)];
    }
    return text;
  }

  void save(const std::filesystem::path& path, const FileSystem& files) const override {
    nlohmann::ordered_json json;
    json["kind"] = kind();
    json["words"] = words_;
    write_file_atomic(path, json.dump(1) + "\n", files);
  }

 private:
  std::vector<std::string> words_;
  WordMap<std::int32_t> index_;
};

}  // namespace

TokenizerPtr train_words(const TokenizerTraining& training, const TextPieces& text) {
  WordMap<std::int64_t> counts;
  text([&](std::string_view piece) {
    split(
        piece,
        [&](std::string_view word) {
          const auto found = counts.find(word);
          if (found != counts.end())
            ++found->second;
          else
            counts.emplace(word, 1);
        },
        [] {});
  });
  if (counts.empty()) fail_user("there is no text to train a tokenizer on");
  std::vector<std::pair<std::int64_t, std::string_view>> ranked;
  for (const auto& [word, count] : counts)
    // The vocabulary's file is JSON, which holds valid UTF-8 alone.
    if (count >= training.min_count && word != unknown_word && word != end_of_line_word && is_utf8(word))
      ranked.emplace_back(-count, word);
  std::sort(ranked.begin(), ranked.end());
  std::vector<std::string> words = {std::string(unknown_word), std::string(end_of_line_word)};
  for (const auto& [count, word] : ranked) {
    if (training.vocab_size > 0 && static_cast<std::int64_t>(words.size()) >= training.vocab_size) break;
    words.emplace_back(word);
  }
  return word_tokenizer("the trained tokenizer", std::move(words));
}

TokenizerPtr word_tokenizer(const std::string& file, std::vector<std::string> words) {
  return std::make_unique<WordTokenizer>(file, std::move(words));
}

}  // namespace weft::detail
