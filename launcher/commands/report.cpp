// weft report DIR: report.html of a run's folder, and what its ranks were doing last.
#include <algorithm>
#include <filesystem>
#include <vector>

#include "launcher/commands.hpp"
#include "launcher/report.hpp"
#include "launcher/run_folder.hpp"
#include "launcher/standard_output.hpp"
#include "parallel/comm/flight_recorder.hpp"

namespace weft {

ExitStatus run_report(const Options& options) {
  print_output("{}\n", write_report(options.report.run).string());
  if (!options.report.flight) return ExitStatus::done;
  const std::filesystem::path folder = flight_folder(options.report.run);
  std::vector<std::filesystem::path> records;
  std::error_code none;
  for (const auto& entry : std::filesystem::directory_iterator(folder, none)) records.push_back(entry.path());
  if (records.empty()) fail_user("--flight: {} holds no flight record", folder.string());
  std::ranges::sort(records);
  for (const auto& record : records) print_output("\n{}", format_flight_record(read_flight_record(record)));
  return ExitStatus::done;
}

}  // namespace weft
