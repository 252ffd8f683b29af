// Log lines to standard error. Thread-safe.
#pragma once
#include <string_view>

#include "core/base/error.hpp"

namespace weft {

enum class LogLevel : std::uint8_t { debug, info, warning, error };

void log_line(LogLevel level, std::string_view message);

template <class... Args>
void log_warning(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::warning, fmt::format(format, std::forward<Args>(args)...));
}
template <class... Args>
void log_error(fmt::format_string<Args...> format, Args&&... args) {
  log_line(LogLevel::error, fmt::format(format, std::forward<Args>(args)...));
}

}  // namespace weft
