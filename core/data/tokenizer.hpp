// Text to tokens and back.
#pragma once
#include <array>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/io/file_system.hpp"

namespace weft {

/// bytes: one token a byte. words: split at white space, one token a word, <eos> for the end of a line (WikiText's
/// convention). bpe, unigram: sentencepiece models that give valid UTF-8 back unchanged (no normalisation, byte tokens
/// for what the vocabulary lacks; only U+2581, the library's own mark, comes back as a space).
enum class TokenizerKind : std::uint8_t { bytes, words, bpe, unigram };

/// "bytes", "words", "bpe" or "unigram"; throws UserError on another.
TokenizerKind tokenizer_kind(std::string_view name);
std::string_view name_of(TokenizerKind kind);

/// What a tokenizer's file is called in a folder, in the order in which tokenizer_in() looks.
inline constexpr std::array<std::string_view, 2> tokenizer_files = {"tokenizer.json", "tokenizer.model"};

/// Safe to use from several threads.
class Tokenizer {
 public:
  virtual ~Tokenizer() = default;
  /// "bytes", "words", "sentencepiece" or "byte-level bpe".
  virtual std::string_view kind() const = 0;
  virtual std::int64_t vocab_size() const = 0;
  /// Whether token i is byte i, so that a file's bytes are its tokens.
  virtual bool is_bytes() const { return false; }
  /// Appends the tokens of `text` to `tokens`.
  virtual void encode(std::string_view text, std::vector<std::int32_t>& tokens) const = 0;
  /// Whether the tokens before and after that place are those of the two parts: a long text may be encoded in such parts.
  /// 0 < position < text.size(). (Of foreign sentencepiece models nothing is known; they are parted after lines.)
  virtual bool parts_at(std::string_view text, std::size_t position) const = 0;
  /// Tokens outside the vocabulary throw UserError.
  virtual std::string decode(std::span<const std::int32_t> tokens) const = 0;
  /// The name that save() wants, of tokenizer_files.
  virtual std::string_view file_name() const = 0;
  /// Atomic; throws IoError.
  virtual void save(const std::filesystem::path& path, const FileSystem& files = FileSystem::posix()) const = 0;
  /// The same tokens as a tokenizer.json of Hugging Face's; empty: there is no such file for this kind.
  virtual std::string hugging_face_json() const { return {}; }
};

using TokenizerPtr = std::unique_ptr<const Tokenizer>;

/// Calls its argument with the training text in pieces that end after a newline (or at the end).
using TextPieces = std::function<void(const std::function<void(std::string_view)>&)>;

struct TokenizerTraining {
  TokenizerKind kind = TokenizerKind::bytes;
  std::int64_t vocab_size = 0;  ///< words: at most (0: no limit); bpe, unigram: exactly
  std::int64_t min_count = 1;   ///< words: rarer ones become <unk>
  int threads = 1;
};

/// Throws UserError when the text does not serve (a vocabulary too large for it, an empty text), or when this build has
/// no sentencepiece.
TokenizerPtr train_tokenizer(const TokenizerTraining& training, const TextPieces& text);
TokenizerPtr byte_tokenizer();
/// What save() wrote, any sentencepiece model, or a tokenizer.json of byte-level BPE (GPT-2, Llama 3) from Hugging Face.
/// Throws UserError on a missing or damaged file.
TokenizerPtr load_tokenizer(const std::filesystem::path& path);

/// The first of tokenizer_files that is in the folder; empty: none is.
std::filesystem::path tokenizer_in(const std::filesystem::path& folder);

/// Text of tokens that come one at a time: gives out what later tokens cannot change, whole UTF-8 characters only.
class StreamingDecoder {
 public:
  /// `tokenizer` must outlive it.
  explicit StreamingDecoder(const Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  /// The text that the token adds; may be empty.
  std::string push(std::int32_t token);
  /// What is left, an incomplete character included.
  std::string finish();

 private:
  const Tokenizer& tokenizer_;
  std::vector<std::int32_t> recent_;
  std::size_t given_ = 0;  ///< bytes of the text of recent_ that were given out
};

}  // namespace weft
