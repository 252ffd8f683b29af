// Splits text into the words that byte-level BPE merges within, as the regular expressions of GPT-2, Llama 3 and Qwen 2 do.
#pragma once
#include <cstddef>
#include <optional>
#include <string_view>

#include "core/data/unicode.hpp"

namespace weft::detail {

class WordSplitter {
 public:
  /// The splitter of one of the three expressions, as it stands in a tokenizer.json; nothing for another.
  static std::optional<WordSplitter> of_pattern(std::string_view pattern);
  static WordSplitter gpt2();

  /// Bytes of the word that `text` (not empty) begins with.
  std::size_t first_word(std::string_view text) const;
  /// Whether a word ends there, whatever the text is further away. 0 < position < text.size(). It knows places before white
  /// space and after line ends, not all.
  bool parts_at(std::string_view text, std::size_t position) const;

 private:
  enum class Style : std::uint8_t { gpt2, llama3 };
  WordSplitter(Style style, int digits) : style_(style), digits_(digits) {}

  struct Step {
    CharacterClass kind;
    char32_t code;
    std::size_t bytes;
  };
  Step at(std::string_view text, std::size_t position) const;
  std::size_t run(std::string_view text, std::size_t position, CharacterClass kind) const;
  std::size_t contraction(std::string_view text) const;
  std::size_t spaces(std::string_view text) const;
  std::size_t gpt2_word(std::string_view text) const;
  std::size_t llama3_word(std::string_view text) const;

  Style style_;
  int digits_;  ///< of a number at most
  CharacterClasses classes_;
};

}  // namespace weft::detail
