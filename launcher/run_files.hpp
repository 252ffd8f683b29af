// The JSON of a run's folder, written and read back.
#pragma once
#include <filesystem>
#include <nlohmann/json_fwd.hpp>
#include <vector>

#include "launcher/metrics.hpp"

namespace weft {

nlohmann::json to_json(const StepMetrics& metrics);
nlohmann::json to_json(const ValidMetrics& metrics);
nlohmann::json to_json(const RunSummary& summary);

struct RunMetrics {
  std::vector<StepMetrics> steps;
  std::vector<ValidMetrics> valid;
};

/// metrics.jsonl. Values that are null (not finite) become NaN. Throws UserError when it is missing or damaged.
RunMetrics read_metrics(const std::filesystem::path& path);
/// run.json; nothing where it is missing (a run that is still going) or damaged.
std::optional<RunSummary> read_summary(const std::filesystem::path& path);

}  // namespace weft
