#include "core/data/utf8.hpp"

#include <algorithm>
#include <cstdint>

namespace weft::detail {
namespace {

bool is_continuation(char c) { return (static_cast<unsigned char>(c) & 0xc0) == 0x80; }

// Bytes of the character that a lead byte begins; 0 for a byte that begins none.
std::size_t length_of(char lead) {
  const auto byte = static_cast<unsigned char>(lead);
  if (byte < 0x80) return 1;
  if (byte >= 0xc2 && byte <= 0xdf) return 2;
  if (byte >= 0xe0 && byte <= 0xef) return 3;
  if (byte >= 0xf0 && byte <= 0xf4) return 4;
  return 0;
}

}  // namespace

bool is_utf8(std::string_view text) {
  constexpr std::uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
  while (!text.empty()) {
    const std::size_t length = length_of(text[0]);
    if (length == 0 || length > text.size()) return false;
    std::uint32_t code = static_cast<unsigned char>(text[0]) & (length == 1 ? 0x7fu : 0xffu >> (length + 1));
    for (std::size_t i = 1; i < length; ++i) {
      if (!is_continuation(text[i])) return false;
      code = (code << 6) | (static_cast<unsigned char>(text[i]) & 0x3fu);
    }
    if (code < smallest[length] || code > 0x10ffff || (code >= 0xd800 && code <= 0xdfff)) return false;
    text.remove_prefix(length);
  }
  return true;
}

std::size_t incomplete_utf8_tail(std::string_view text) {
  for (std::size_t back = 1; back <= std::min<std::size_t>(3, text.size()); ++back) {
    const char c = text[text.size() - back];
    if (is_continuation(c)) continue;
    return length_of(c) > back ? back : 0;
  }
  return 0;
}

}  // namespace weft::detail
