// The frame of Weft's HTML pages: one file, no scripts, light and dark.
#pragma once
#include <string>
#include <string_view>

namespace weft {

/// A whole page around the contents of <main>; `title` is plain text.
std::string html_page(std::string_view title, std::string_view body);

}  // namespace weft
