// A run's folder: config.cfg, metrics.jsonl, run.json, sample.txt, checkpoints/, report.html. Written by rank 0 alone.
#pragma once
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "core/kernels/product_table.hpp"
#include "launcher/metrics.hpp"
#include "launcher/options.hpp"

namespace weft {

/// Seconds that others may wait for a rank that reads or writes files on a slow disk.
inline constexpr double file_allowance_seconds = 1800;

/// Where the ranks of a run keep their flight records.
std::filesystem::path flight_folder(const std::filesystem::path& run);

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
  /// The table of products that the run goes by, for the starts that resume it.
  void keep_product_table(const ProductTable& table) const;
  /// Opens metrics.jsonl for appending without rows of later steps than `last_step` (from before a resume) and a torn
  /// last row; 0 starts it anew. As long as later checkpoints stay, so do their rows: they stand aside, and the next
  /// start has them back unless drop_later_metrics() came. Returns the `seconds` of the last row kept.
  double open_metrics(std::int64_t last_step);
  /// With the checkpoints that they belong to.
  void drop_later_metrics() const;
  /// A row that cannot be written (a full disk) is reported and waits in memory for the next one or flush(); training goes
  /// on.
  void append(const StepMetrics& metrics);
  void append(const ValidMetrics& metrics);
  void flush();
  void write_summary(const RunSummary& summary) const;
  void write_sample(std::string_view text) const;

 private:
  struct Writer;
  std::filesystem::path later_metrics() const { return root_ / "metrics.later.jsonl"; }

  std::filesystem::path root_;
  std::unique_ptr<Writer> writer_;
};

}  // namespace weft
