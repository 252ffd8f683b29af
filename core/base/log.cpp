#include "core/base/log.hpp"

#include <spdlog/spdlog.h>

namespace weft {

void log_line(LogLevel level, std::string_view message) {
  constexpr spdlog::level::level_enum levels[] = {spdlog::level::debug, spdlog::level::info, spdlog::level::warn,
                                                  spdlog::level::err};
  spdlog::default_logger_raw()->log(levels[static_cast<int>(level)], message);
}

}  // namespace weft
