// What a tokenizer.json of byte-level BPE says.
#pragma once
#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "core/data/word_splitter.hpp"

namespace weft::detail {

struct ByteLevelFile {
  struct Added {
    std::string text;
    std::int32_t id;
    bool normalized;
  };
  struct Merge {
    std::int32_t left, right, token;
  };

  std::vector<std::string> texts;       ///< of each token, in bytes
  std::array<std::int32_t, 256> bytes;  ///< the token of each byte
  std::vector<Merge> merges;            ///< by rank
  std::vector<Added> added;
  std::vector<std::pair<std::string, std::int32_t>> words;  ///< the vocabulary in bytes, without added tokens
  bool whole_words = false;              ///< a word of the vocabulary is its token, whatever merges say
  std::optional<WordSplitter> splitter;  ///< none: the text is one word
};

/// Throws UserError as byte_level_bpe() says.
ByteLevelFile read_byte_level_file(const std::string& file, std::string_view text);

}  // namespace weft::detail
