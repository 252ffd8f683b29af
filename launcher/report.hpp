// report.html of a run's folder: self-contained, from config.cfg, metrics.jsonl, run.json and sample.txt.
#pragma once
#include <filesystem>

namespace weft {

/// Writes report.html (aside, then renamed) and returns its path. Throws UserError when the folder has no readable
/// metrics.jsonl.
std::filesystem::path write_report(const std::filesystem::path& run);

}  // namespace weft
