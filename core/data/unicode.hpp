// Characters of UTF-8 text and the classes that tokenizers' patterns ask for.
#pragma once
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace weft::detail {

enum class CharacterClass : std::uint8_t { other, letter, number, space };

/// \p{L}, \p{N} and \s (no character is of two), in order.
struct CharacterRange {
  char32_t first, last;
  CharacterClass kind;
};
std::span<const CharacterRange> character_ranges();

/// A character where it stands. A byte that begins no valid character is one of its own, `invalid`.
struct Character {
  static constexpr char32_t invalid = 0xffffffff;
  char32_t code;
  std::uint32_t bytes;
};
/// `text` must not be empty.
Character first_character(std::string_view text);
void append_utf8(char32_t code, std::string& text);

/// The classes as one table.
class CharacterClasses {
 public:
  CharacterClasses();
  CharacterClass operator()(char32_t code) const {
    return code < classes_.size() ? classes_[code] : CharacterClass::other;
  }

 private:
  std::vector<CharacterClass> classes_;
};

}  // namespace weft::detail
