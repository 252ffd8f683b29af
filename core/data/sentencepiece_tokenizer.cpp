#include "core/data/sentencepiece_tokenizer.hpp"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <algorithm>
#include <unordered_map>

#include "core/base/philox.hpp"
#include "core/io/atomic_file.hpp"

namespace weft::detail {
namespace {

// Longer lines are trained on in parts; sentencepiece would leave them out.
constexpr std::size_t longest_sentence = 8192;
// sentencepiece holds its sentences in memory. A larger text is thinned out evenly.
constexpr std::size_t sentence_budget = std::size_t{256} << 20;

// Keeps all sentences, or, above the budget, those whose number hashes to 0 in ever more bits: an even sample that is
// the same on every run.
class Sentences final : public sentencepiece::SentenceIterator {
 public:
  void add(std::string_view sentence) {
    const std::uint64_t number = count_++;
    if (sentence.empty() || (hash(number) & mask_) != 0) return;
    kept_.push_back({number, std::string(sentence)});
    bytes_ += sentence.size();
    while (bytes_ > sentence_budget) thin_out();
  }
  bool empty() const { return kept_.empty(); }

  bool done() const override { return next_ >= kept_.size(); }
  void Next() override { ++next_; }
  const std::string& value() const override { return kept_[next_].text; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  struct Sentence {
    std::uint64_t number;
    std::string text;
  };

  static std::uint32_t hash(std::uint64_t number) { return philox_word({0x73656e74u, 0u}, number); }

  void thin_out() {
    mask_ = mask_ * 2 + 1;
    std::erase_if(kept_, [&](const Sentence& sentence) { return (hash(sentence.number) & mask_) != 0; });
    bytes_ = 0;
    for (const Sentence& sentence : kept_) bytes_ += sentence.text.size();
  }

  std::vector<Sentence> kept_;
  std::uint64_t count_ = 0;
  std::uint32_t mask_ = 0;
  std::size_t bytes_ = 0;
  std::size_t next_ = 0;
};

// Lines and tabs part sentences: sentencepiece passes over a sentence with a tab, which it reserves.
void add_sentences(std::string_view text, Sentences& sentences) {
  while (!text.empty()) {
    const std::size_t end = std::min(text.find_first_of("\n\t"), text.size());
    std::string_view line = text.substr(0, end);
    while (line.size() > longest_sentence) {
      const std::size_t space = line.rfind(' ', longest_sentence);
      const std::size_t cut = space == std::string_view::npos || space == 0 ? longest_sentence : space;
      sentences.add(line.substr(0, cut));
      line.remove_prefix(cut);
    }
    sentences.add(line);
    text.remove_prefix(std::min(end + 1, text.size()));
  }
}

// What the library says, without its source file and line, which stand before "] ".
std::string reason(const sentencepiece::util::Status& status) {
  std::string text = status.ToString();
  const std::size_t place = text.rfind("] ");
  if (place != std::string::npos) text.erase(0, place + 2);
  std::replace(text.begin(), text.end(), '\n', ' ');
  return text;
}

class SentencePieceTokenizer final : public Tokenizer {
 public:
  SentencePieceTokenizer(const std::string& file, std::string model) : model_(std::move(model)) {
    if (!processor_.LoadFromSerializedProto(model_).ok())
      fail_user("file '{}' is no tokenizer: neither one that weft wrote nor a sentencepiece model", file);
    std::vector<int> newline;
    lines_are_separate_ = processor_.Encode("\n", &newline).ok() && newline.size() == 1;
  }

  std::string_view kind() const override { return "sentencepiece"; }
  std::int64_t vocab_size() const override { return processor_.GetPieceSize(); }
  std::string_view file_name() const override { return "tokenizer.model"; }

  void encode(std::string_view text, std::vector<std::int32_t>& tokens) const override {
    while (!text.empty()) {
      std::size_t end = text.size();
      if (lines_are_separate_ && text.size() > piece_bytes) {
        const std::size_t newline = text.find('\n', piece_bytes);
        if (newline != std::string_view::npos) end = newline + 1;
      }
      std::vector<int> found;
      const auto status = processor_.Encode(text.substr(0, end), &found);
      WEFT_CHECK(status.ok(), "sentencepiece: {}", status.ToString());
      tokens.insert(tokens.end(), found.begin(), found.end());
      text.remove_prefix(end);
    }
  }

  bool parts_at(std::string_view text, std::size_t position) const override { return text[position - 1] == '\n'; }

  std::string decode(std::span<const std::int32_t> tokens) const override {
    for (const std::int32_t token : tokens)
      if (token < 0 || token >= vocab_size())
        fail_user("token {} is outside the tokenizer's vocabulary of {}", token, vocab_size());
    std::string text;
    const auto status = processor_.Decode(std::vector<int>(tokens.begin(), tokens.end()), &text);
    WEFT_CHECK(status.ok(), "sentencepiece: {}", status.ToString());
    return text;
  }

  void save(const std::filesystem::path& path, const FileSystem& files) const override {
    write_file_atomic(path, model_, files);
  }

 private:
  // Merging is slower the longer the text; where a newline is a token of its own, parting the text there changes
  // nothing.
  static constexpr std::size_t piece_bytes = 4096;

  std::string model_;
  sentencepiece::SentencePieceProcessor processor_;
  bool lines_are_separate_ = false;
};

}  // namespace

TokenizerPtr train_sentencepiece(const TokenizerTraining& training, const TextPieces& text) {
  Sentences sentences;
  text([&](std::string_view piece) { add_sentences(piece, sentences); });
  if (sentences.empty()) fail_user("there is no text to train a tokenizer on");
  const std::unordered_map<std::string, std::string> options = {
      {"model_type", std::string(name_of(training.kind))},
      {"vocab_size", std::to_string(training.vocab_size)},
      {"normalization_rule_name", "identity"},
      {"remove_extra_whitespaces", "false"},
      {"add_dummy_prefix", "false"},
      {"allow_whitespace_only_pieces", "true"},
      {"byte_fallback", "true"},
      {"user_defined_symbols", "\n,\t"},
      {"character_coverage", "0.9995"},
      {"max_sentence_length", std::to_string(longest_sentence)},
      {"num_threads", std::to_string(training.threads)},
      {"minloglevel", "2"},
  };
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(options, &sentences, &model);
  if (!status.ok())
    fail_user("no {} tokenizer of {} tokens can be trained on this text: {}", name_of(training.kind),
              training.vocab_size, reason(status));
  return std::make_unique<SentencePieceTokenizer>("the trained tokenizer", std::move(model));
}

TokenizerPtr parse_sentencepiece(const std::string& file, std::string model) {
  return std::make_unique<SentencePieceTokenizer>(file, std::move(model));
}

}  // namespace weft::detail
