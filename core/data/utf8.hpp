// The little about UTF-8 that tokenizers need.
#pragma once
#include <cstddef>
#include <string_view>

namespace weft::detail {

bool is_utf8(std::string_view text);
/// Bytes at the end that begin a character and lack its rest; 0 when the text ends with a whole or an invalid one.
std::size_t incomplete_utf8_tail(std::string_view text);

}  // namespace weft::detail
