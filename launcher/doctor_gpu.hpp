// What `weft doctor` says of GPUs: which there are, what they can reach, what drives them, and how fast one of them is.
#pragma once
#include <nlohmann/json_fwd.hpp>
#include <optional>
#include <string>
#include <vector>

#include "core/kernels/backend_module.hpp"
#include "launcher/environment.hpp"
#include "launcher/options.hpp"

namespace weft {

struct GpuRates {
  double f32_gflops = 0;  ///< matrix products as training does them
  double bf16_gflops = 0;
  double to_device_gb_per_s = 0;  ///< from pinned host memory
  double to_host_gb_per_s = 0;
  double on_device_gb_per_s = 0;  ///< bytes read and written
};

struct GpuReport {
  std::string missing;  ///< why none can be used; empty otherwise
  std::vector<DeviceSummary> devices;
  std::vector<std::string> libraries;  ///< with versions, of the measured device
  std::optional<GpuRates> rates;       ///< of this rank's device
};

/// Throws nothing about GPUs: what fails stands in `missing`.
GpuReport report_gpus(const RunOptions& options, const RankEnvironment& rank);

nlohmann::json to_json(const GpuReport& report);
/// Lines of "  name   value", each with its newline.
std::string format_gpus(const GpuReport& report);

}  // namespace weft
