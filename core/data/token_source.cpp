#include "core/data/token_source.hpp"

#include <algorithm>

#include "core/base/error.hpp"
#include "core/data/tokenizer.hpp"

namespace weft {
namespace {

class MemoryTokens final : public TokenSource {
 public:
  MemoryTokens(std::string name, std::string bytes) : name_(std::move(name)), bytes_(std::move(bytes)) {}

  const std::string& name() const override { return name_; }
  std::int64_t size() const override { return static_cast<std::int64_t>(bytes_.size()); }
  std::int64_t vocab_size() const override { return 256; }
  std::int64_t text_bytes() const override { return size(); }

  void read(std::int64_t begin, std::span<std::int32_t> out) const override {
    const auto count = static_cast<std::int64_t>(out.size());
    WEFT_CHECK(begin >= 0 && begin <= size() - count, "{}: tokens [{}, {}) of {}", name_, begin, begin + count, size());
    std::transform(bytes_.begin() + begin, bytes_.begin() + begin + count, out.begin(),
                   [](char byte) { return static_cast<std::int32_t>(static_cast<unsigned char>(byte)); });
  }

 private:
  std::string name_;
  std::string bytes_;
};

class EncodedText final : public TokenSource {
 public:
  EncodedText(std::string name, std::string_view text, const Tokenizer& tokenizer)
      : name_(std::move(name)), text_bytes_(static_cast<std::int64_t>(text.size())) {
    tokenizer.encode(text, tokens_);
    if (tokens_.empty()) fail_user("file '{}' has no tokens", name_);
  }

  const std::string& name() const override { return name_; }
  std::int64_t size() const override { return static_cast<std::int64_t>(tokens_.size()); }
  std::int64_t vocab_size() const override { return 0; }
  std::int64_t text_bytes() const override { return text_bytes_; }

  void read(std::int64_t begin, std::span<std::int32_t> out) const override {
    const auto count = static_cast<std::int64_t>(out.size());
    WEFT_CHECK(begin >= 0 && begin <= size() - count, "{}: tokens [{}, {}) of {}", name_, begin, begin + count, size());
    std::copy_n(tokens_.begin() + begin, count, out.begin());
  }

 private:
  std::string name_;
  std::int64_t text_bytes_;
  std::vector<std::int32_t> tokens_;
};

class TokenSlice final : public TokenSource {
 public:
  TokenSlice(TokenSourcePtr source, std::int64_t begin, std::int64_t end)
      : source_(std::move(source)), begin_(begin), end_(end) {
    WEFT_CHECK(0 <= begin && begin <= end && end <= source_->size(), "{}: slice [{}, {}) of {}", source_->name(), begin,
               end, source_->size());
  }

  const std::string& name() const override { return source_->name(); }
  std::int64_t size() const override { return end_ - begin_; }
  std::int64_t vocab_size() const override { return source_->vocab_size(); }

  std::int64_t text_bytes() const override {
    if (source_->size() == 0) return 0;
    const double part = static_cast<double>(size()) / static_cast<double>(source_->size());
    return static_cast<std::int64_t>(static_cast<double>(source_->text_bytes()) * part + 0.5);
  }

  void read(std::int64_t begin, std::span<std::int32_t> out) const override {
    const auto count = static_cast<std::int64_t>(out.size());
    WEFT_CHECK(begin >= 0 && begin <= size() - count, "{}: tokens [{}, {}) of {}", name(), begin, begin + count,
               size());
    source_->read(begin_ + begin, out);
  }

 private:
  TokenSourcePtr source_;
  std::int64_t begin_;
  std::int64_t end_;
};

}  // namespace

TokenSourcePtr memory_tokens(std::string name, std::string bytes) {
  return std::make_shared<MemoryTokens>(std::move(name), std::move(bytes));
}

TokenSourcePtr encode_text(std::string name, std::string_view text, const Tokenizer& tokenizer) {
  return std::make_shared<EncodedText>(std::move(name), text, tokenizer);
}

TokenSourcePtr slice_tokens(TokenSourcePtr source, std::int64_t begin, std::int64_t end) {
  return std::make_shared<TokenSlice>(std::move(source), begin, end);
}

std::int64_t scan_vocab(const TokenSource& source) {
  std::vector<std::int32_t> piece(1 << 16);
  std::int32_t largest = -1;
  for (std::int64_t begin = 0; begin < source.size(); begin += static_cast<std::int64_t>(piece.size())) {
    const auto count = std::min(static_cast<std::int64_t>(piece.size()), source.size() - begin);
    const std::span part(piece.data(), static_cast<std::size_t>(count));
    source.read(begin, part);
    largest = std::max(largest, *std::max_element(part.begin(), part.end()));
  }
  return std::int64_t{largest} + 1;
}

}  // namespace weft
