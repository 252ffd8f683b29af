#include "core/data/tokenizer.hpp"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

#include "core/base/error.hpp"
#include "core/data/byte_level_bpe.hpp"
#include "core/data/sentencepiece_tokenizer.hpp"
#include "core/data/utf8.hpp"
#include "core/data/word_tokenizer.hpp"
#include "core/io/atomic_file.hpp"
#include "core/io/mapped_file.hpp"

namespace weft {
namespace {

constexpr std::array<std::pair<std::string_view, TokenizerKind>, 4> kinds = {{{"bytes", TokenizerKind::bytes},
                                                                              {"words", TokenizerKind::words},
                                                                              {"bpe", TokenizerKind::bpe},
                                                                              {"unigram", TokenizerKind::unigram}}};

class ByteTokenizer final : public Tokenizer {
 public:
  std::string_view kind() const override { return "bytes"; }
  std::int64_t vocab_size() const override { return 256; }
  bool is_bytes() const override { return true; }
  std::string_view file_name() const override { return "tokenizer.json"; }

  void encode(std::string_view text, std::vector<std::int32_t>& tokens) const override {
    for (const char c : text) tokens.push_back(static_cast<unsigned char>(c));
  }

  bool parts_at(std::string_view, std::size_t) const override { return true; }

  std::string decode(std::span<const std::int32_t> tokens) const override {
    std::string text;
    for (const std::int32_t token : tokens) {
      if (token < 0 || token > 255) fail_user("token {} is outside the tokenizer's vocabulary of 256", token);
      text += static_cast<char>(token);
    }
    return text;
  }

  void save(const std::filesystem::path& path, const FileSystem& files) const override {
    write_file_atomic(path, "{\"kind\": \"bytes\"}\n", files);
  }
  std::string hugging_face_json() const override { return detail::byte_level_json(); }
};

// Length of the text without what later tokens may change: the bytes of a character that is not whole yet, for which
// sentencepiece puts a replacement character each, up to three.
std::size_t certain_length(std::string_view text) {
  constexpr std::string_view replacement = "\xef\xbf\xbd";
  text.remove_suffix(detail::incomplete_utf8_tail(text));
  for (int held = 0; held < 3 && text.ends_with(replacement); ++held) text.remove_suffix(replacement.size());
  return text.size();
}

}  // namespace

TokenizerKind tokenizer_kind(std::string_view name) {
  for (const auto& [known, kind] : kinds)
    if (known == name) return kind;
  fail_user("tokenizer '{}' is unknown: bytes, words, bpe or unigram", name);
}

std::string_view name_of(TokenizerKind kind) {
  for (const auto& [name, known] : kinds)
    if (known == kind) return name;
  fail("tokenizer {} has no name", static_cast<int>(kind));
}

TokenizerPtr byte_tokenizer() { return std::make_unique<ByteTokenizer>(); }

TokenizerPtr train_tokenizer(const TokenizerTraining& training, const TextPieces& text) {
  switch (training.kind) {
    case TokenizerKind::bytes: return byte_tokenizer();
    case TokenizerKind::words: return detail::train_words(training, text);
    case TokenizerKind::bpe:
    case TokenizerKind::unigram:
      if (training.vocab_size < 1)
        fail_user("a {} tokenizer needs a vocabulary size, for example 8000", name_of(training.kind));
      return detail::train_sentencepiece(training, text);
  }
  fail("tokenizer {} has no name", static_cast<int>(training.kind));
}

TokenizerPtr load_tokenizer(const std::filesystem::path& path) {
  const MappedFile map(path);
  std::string text(reinterpret_cast<const char*>(map.bytes().data()), map.bytes().size());
  if (!text.starts_with('{')) return detail::parse_sentencepiece(path.string(), text);
  const nlohmann::json json = nlohmann::json::parse(text, nullptr, false);
  if (json.is_object() && json.contains("model") && !json.contains("kind"))
    return detail::byte_level_bpe(path.string(), std::move(text));
  std::string kind;
  std::vector<std::string> words;
  try {
    kind = json.at("kind").get<std::string>();
    if (kind == "words") words = json.at("words").get<std::vector<std::string>>();
  } catch (const nlohmann::json::exception&) {
    fail_user("tokenizer file '{}' is damaged", path.string());
  }
  if (kind == "bytes") return byte_tokenizer();
  if (kind == "words") return detail::word_tokenizer(path.string(), std::move(words));
  fail_user("tokenizer file '{}' is of the unknown kind '{}': bytes or words", path.string(), kind);
}

std::filesystem::path tokenizer_in(const std::filesystem::path& folder) {
  for (const std::string_view name : tokenizer_files)
    if (std::filesystem::exists(folder / name)) return folder / name;
  return {};
}

std::string StreamingDecoder::push(std::int32_t token) {
  // Enough tokens before the new one that the text it adds does not depend on what was dropped.
  constexpr std::size_t context = 16;
  recent_.push_back(token);
  const std::string text = tokenizer_.decode(recent_);
  const std::size_t certain = certain_length(text);
  std::string added;
  if (certain > given_) {
    added = text.substr(given_, certain - given_);
    given_ = certain;
  }
  if (recent_.size() >= 2 * context && given_ == text.size()) {
    recent_.erase(recent_.begin(), recent_.end() - context);
    given_ = tokenizer_.decode(recent_).size();
  }
  return added;
}

std::string StreamingDecoder::finish() {
  const std::string text = tokenizer_.decode(recent_);
  std::string rest = text.substr(std::min(given_, text.size()));
  recent_.clear();
  given_ = 0;
  return rest;
}

}  // namespace weft
