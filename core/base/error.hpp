// Errors and checks. A library never ends the process: it throws, and the launcher maps the type to an exit status.
#pragma once
#include <fmt/core.h>

#include <stdexcept>
#include <string>
#include <utility>

namespace weft {

/// The run failed (exit status 3).
class Error : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// The user's input is wrong (exit status 2): one line that names the option or file, what was found and what would be
/// right.
class UserError : public Error {
 public:
  using Error::Error;
};

template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Error(fmt::format(format, std::forward<Args>(args)...));
}

template <class... Args>
[[noreturn]] void fail_user(fmt::format_string<Args...> format, Args&&... args) {
  throw UserError(fmt::format(format, std::forward<Args>(args)...));
}

namespace detail {
[[noreturn]] void check_failed(const char* condition, const char* file, int line, const std::string& message);
}

}  // namespace weft

/// Throws weft::Error that carries the condition, file and line when `condition` is false; a format string may follow.
#define WEFT_CHECK(condition, ...)                                                                      \
  do {                                                                                                  \
    if (!(condition)) [[unlikely]]                                                                      \
      ::weft::detail::check_failed(#condition, __FILE__, __LINE__, ::fmt::format("" __VA_ARGS__));      \
  } while (false)
