// Standard output that may be a pipe whose reader leaves, or a file on a full disk.
#pragma once
#include <fmt/format.h>

#include <string_view>

namespace weft {

/// Writes `text` at once. False when nobody reads any more (`| head`). Throws IoError when it cannot be written.
bool write_output(std::string_view text);

/// The same of formatted text; what a command prints when it is done may lack a reader.
template <class... Args>
bool print_output(fmt::format_string<Args...> format, Args&&... args) {
  return write_output(fmt::format(format, std::forward<Args>(args)...));
}

/// What was printed before is out when it returns; throws IoError if it cannot be written.
void flush_output();

}  // namespace weft
