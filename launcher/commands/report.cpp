// weft report DIR: report.html of a run's folder.
#include <fmt/core.h>

#include "launcher/commands.hpp"
#include "launcher/report.hpp"

namespace weft {

ExitStatus run_report(const Options& options) {
  fmt::print("{}\n", write_report(options.report.run).string());
  return ExitStatus::done;
}

}  // namespace weft
