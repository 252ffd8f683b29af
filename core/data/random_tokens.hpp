// Tokens that mean nothing, for measuring.
#pragma once
#include "core/base/philox.hpp"
#include "core/data/token_source.hpp"

namespace weft {

/// The same stream for the same size and vocabulary, made when it is read.
class RandomTokens final : public TokenSource {
 public:
  RandomTokens(std::int64_t size, std::int64_t vocab) : size_(size), vocab_(vocab) {}
  const std::string& name() const override { return name_; }
  std::int64_t size() const override { return size_; }
  std::int64_t vocab_size() const override { return vocab_; }
  std::int64_t text_bytes() const override { return 0; }
  void read(std::int64_t begin, std::span<std::int32_t> out) const override {
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] = static_cast<std::int32_t>(philox_word(key_, static_cast<std::uint64_t>(begin) + i) %
                                         static_cast<std::uint64_t>(vocab_));
  }

 private:
  std::string name_ = "random tokens";
  PhiloxKey key_ = philox_key(1, "tokens");
  std::int64_t size_, vocab_;
};

}  // namespace weft
