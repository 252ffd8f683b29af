#include "core/data/unicode.hpp"

#include <algorithm>

#include "core/data/utf8.hpp"

namespace weft::detail {

Character first_character(std::string_view text) {
  const auto lead = static_cast<unsigned char>(text[0]);
  if (lead < 0x80) return {lead, 1};
  const std::uint32_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
  if (text.size() < length || !is_utf8(text.substr(0, length))) return {Character::invalid, 1};
  char32_t code = lead & (0xffu >> (length + 1));
  for (std::uint32_t i = 1; i < length; ++i) code = (code << 6) | (static_cast<unsigned char>(text[i]) & 0x3fu);
  return {code, length};
}

void append_utf8(char32_t code, std::string& text) {
  const auto add = [&](char32_t byte) { text += static_cast<char>(byte); };
  if (code < 0x80) return add(code);
  if (code < 0x800) {
    add(0xc0 | (code >> 6));
  } else if (code < 0x10000) {
    add(0xe0 | (code >> 12));
    add(0x80 | ((code >> 6) & 0x3f));
  } else {
    add(0xf0 | (code >> 18));
    add(0x80 | ((code >> 12) & 0x3f));
    add(0x80 | ((code >> 6) & 0x3f));
  }
  add(0x80 | (code & 0x3f));
}

CharacterClasses::CharacterClasses() : classes_(character_ranges().back().last + 1, CharacterClass::other) {
  for (const CharacterRange& range : character_ranges())
    std::fill(classes_.begin() + range.first, classes_.begin() + range.last + 1, range.kind);
}

}  // namespace weft::detail
