#include "launcher/run_folder.hpp"

#include <algorithm>
#include <deque>
#include <nlohmann/json.hpp>

#include "core/base/log.hpp"
#include "core/io/atomic_file.hpp"
#include "core/io/json_lines.hpp"
#include "launcher/product_tables.hpp"
#include "launcher/run_files.hpp"

namespace weft {

std::filesystem::path flight_folder(const std::filesystem::path& run) { return run / "flight"; }

struct RunFolder::Writer {
  explicit Writer(const std::filesystem::path& path) : lines(path) {}

  JsonLinesWriter lines;
  std::deque<nlohmann::json> waiting;

  // A full disk must not end the training that a checkpoint may still save; rows wait for room.
  void append(nlohmann::json row) {
    waiting.push_back(std::move(row));
    write();
  }

  void write() {
    const bool failing = waiting.size() > 1;
    try {
      for (; !waiting.empty(); waiting.pop_front()) lines.append(waiting.front());
    } catch (const IoError& error) {
      if (!failing) log_warning("metrics wait in memory: {}", error.what());
    }
  }
};

RunFolder::RunFolder(std::filesystem::path root) : root_(std::move(root)) {
  make_output_folder(root_, "--out");
  make_output_folder(checkpoints(), "--out");
}
RunFolder::~RunFolder() = default;
RunFolder::RunFolder(RunFolder&&) noexcept = default;
RunFolder& RunFolder::operator=(RunFolder&&) noexcept = default;

void RunFolder::write_config(const Options& options) const {
  weft::write_config(options, (root_ / "config.cfg").string());
}

void RunFolder::keep_product_table(const ProductTable& table) const {
  write_file_atomic(root_ / run_table_name, format_product_table(table));
}

double RunFolder::open_metrics(std::int64_t last_step) {
  writer_.reset();
  double seconds = 0;
  // An earlier start went back and ended before it saved: the rows that it set aside hold again.
  if (std::filesystem::exists(later_metrics())) std::filesystem::rename(later_metrics(), metrics());
  if (last_step <= 0) {
    std::filesystem::remove(metrics());
  } else if (std::filesystem::exists(metrics())) {
    bool dropped = false;
    copy_file_atomic(metrics(), later_metrics());
    filter_json_lines(metrics(), [&](const nlohmann::json& row) {
      const bool keep = row.value("step", std::int64_t{0}) <= last_step;
      if (keep) seconds = std::max(seconds, row.value("seconds", 0.0));
      dropped = dropped || !keep;
      return keep;
    });
    if (!dropped) drop_later_metrics();
  }
  writer_ = std::make_unique<Writer>(metrics());
  return seconds;
}

void RunFolder::drop_later_metrics() const { std::filesystem::remove(later_metrics()); }

void RunFolder::append(const StepMetrics& metrics) {
  WEFT_CHECK(writer_, "metrics are not open");
  writer_->append(to_json(metrics));
}

void RunFolder::append(const ValidMetrics& metrics) {
  WEFT_CHECK(writer_, "metrics are not open");
  writer_->append(to_json(metrics));
}

void RunFolder::flush() {
  try {
    if (!writer_) return;
    writer_->write();
    writer_->lines.sync();
  } catch (const IoError& error) {
    log_warning("metrics may be lost: {}", error.what());
  }
}

void RunFolder::write_summary(const RunSummary& summary) const {
  write_file_atomic(root_ / "run.json", to_json(summary).dump(2) + "\n");
}

void RunFolder::write_sample(std::string_view text) const { write_file_atomic(root_ / "sample.txt", text); }

}  // namespace weft
