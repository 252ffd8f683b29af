#include "core/base/log.hpp"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

namespace weft {
namespace {

// Standard output belongs to what a command is asked for.
spdlog::logger& logger() {
  static spdlog::logger made = [] {
    spdlog::logger to_stderr("weft", std::make_shared<spdlog::sinks::stderr_sink_mt>());
    to_stderr.set_pattern("weft: %l: %v");
    return to_stderr;
  }();
  return made;
}

}  // namespace

void log_line(LogLevel level, std::string_view message) {
  constexpr spdlog::level::level_enum levels[] = {spdlog::level::debug, spdlog::level::info, spdlog::level::warn,
                                                  spdlog::level::err};
  logger().log(levels[static_cast<int>(level)], message);
}

}  // namespace weft
