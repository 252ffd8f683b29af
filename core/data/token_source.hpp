// A stream of tokens with random access.
#pragma once
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace weft {

class Tokenizer;

/// Tokens 0 … size()-1 of one stream. Safe to read from several threads.
class TokenSource {
 public:
  virtual ~TokenSource() = default;
  /// The file, as messages name it.
  virtual const std::string& name() const = 0;
  virtual std::int64_t size() const = 0;
  /// 256 for bytes; 0 when the file does not say and nothing was given.
  virtual std::int64_t vocab_size() const = 0;
  /// Bytes of text that all tokens of the stream stand for (for bits per byte); 0 when unknown.
  virtual std::int64_t text_bytes() const = 0;
  /// Copies tokens [begin, begin + out.size()). Throws UserError on a token outside the vocabulary (files too large for
  /// a scan when opened), Error on a range outside the stream.
  virtual void read(std::int64_t begin, std::span<std::int32_t> out) const = 0;
};

using TokenSourcePtr = std::shared_ptr<const TokenSource>;
/// Several files: windows never cross from one to the next.
using TokenSources = std::vector<TokenSourcePtr>;

/// Bytes in memory, vocabulary 256.
TokenSourcePtr memory_tokens(std::string name, std::string bytes);

/// The tokens of `text`, in memory. No vocabulary is declared: the text may do with less than the tokenizer has.
TokenSourcePtr encode_text(std::string name, std::string_view text, const Tokenizer& tokenizer);

/// Tokens [begin, end) of another source. text_bytes() is exact for bytes and in proportion otherwise.
TokenSourcePtr slice_tokens(TokenSourcePtr source, std::int64_t begin, std::int64_t end);

/// The largest token plus one: reads the whole stream.
std::int64_t scan_vocab(const TokenSource& source);

}  // namespace weft
