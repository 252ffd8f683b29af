#include "core/base/error.hpp"

namespace weft::detail {

void check_failed(const char* condition, const char* file, int line, const std::string& message) {
  throw Error(fmt::format("{}{}check `{}` failed at {}:{}", message, message.empty() ? "" : ": ", condition, file, line));
}

}  // namespace weft::detail
