// A run's folder: config.cfg, metrics.jsonl, run.json, sample.txt, checkpoints/, report.html. Written by rank 0 alone.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "launcher/metrics.hpp"
#include "launcher/options.hpp"

namespace weft {

class RunFolder {
 public:
  /// Creates the folder where it is missing. Throws UserError when it cannot be made or written.
  explicit RunFolder(std::filesystem::path root);
  ~RunFolder();
  RunFolder(RunFolder&&) noexcept;
  RunFolder& operator=(RunFolder&&) noexcept;

  const std::filesystem::path& root() const { return root_; }
  std::filesystem::path checkpoints() const { return root_ / "checkpoints"; }
  std::filesystem::path metrics() const { return root_ / "metrics.jsonl"; }

  void write_config(const Options& options) const;
  /// Opens metrics.jsonl for appending; rows of later steps than `last_step` (from before a resume) and a torn last row
  /// are dropped, so 0 starts it anew. Returns the `seconds` of the last row kept.
  double open_metrics(std::int64_t last_step);
  /// A row that cannot be written (a full disk) is reported and waits in memory for the next one or flush(); training goes
  /// on.
  void append(const StepMetrics& metrics);
  void append(const ValidMetrics& metrics);
  void flush();
  void write_summary(const RunSummary& summary) const;
  void write_sample(std::string_view text) const;

 private:
  struct Writer;
  std::filesystem::path root_;
  std::unique_ptr<Writer> writer_;
};

}  // namespace weft
