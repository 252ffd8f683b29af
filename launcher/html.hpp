// Text for HTML and SVG.
#pragma once
#include <string>
#include <string_view>

namespace weft {

/// With &, <, >, " and characters that XML forbids made safe; bytes that are not UTF-8 become U+FFFD.
std::string escape_html(std::string_view text);

}  // namespace weft
