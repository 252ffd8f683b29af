// Progress for people: a bar on a terminal, plain lines in a log file. Made on rank 0 alone.
#pragma once
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

#include "launcher/metrics.hpp"

namespace weft {

struct ProgressOptions {
  std::FILE* stream = stderr;
  int columns = 0;  ///< width of the terminal; 0: not a terminal, plain lines
  bool utf8 = false;
  bool quiet = false;           ///< nothing at all, notes included
  std::int64_t steps = 0;       ///< of the whole run
  std::int64_t first_step = 0;  ///< steps done before this start (resume)
  double max_seconds = 0;       ///< a time limit that may end the run earlier; 0: none
  double line_seconds = 10;     ///< plain lines come this far apart at least (and at the first and last step)
  std::int64_t log_every = 1;   ///< and only at multiples of this step
};

/// ProgressOptions for this process: looks at the terminal, at what `weft launch` said about its own, and at the
/// locale.
ProgressOptions detect_progress(bool quiet);

class Progress {
 public:
  explicit Progress(ProgressOptions options);
  ~Progress();  ///< leaves the cursor on a fresh line
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void step(const StepMetrics& metrics);
  /// "valid 1.532 nats" in the bar and as a line of its own.
  void valid(const ValidMetrics& metrics);
  /// A line of its own, above the bar.
  void note(std::string_view line);
  void finish();

 private:
  void draw();
  void clear();
  void put(std::string_view text) const;
  double seconds_left() const;

  ProgressOptions options_;
  StepMetrics last_;
  double valid_loss_ = -1;  ///< -1: none so far
  double began_ = 0;
  double drawn_at_ = -1;  ///< -1: nothing shown so far
  double first_step_at_ = 0;
  double step_seconds_ = 0;  ///< mean
  bool bar_shown_ = false;
};

/// The bar's line, at most `columns` wide (tested).
std::string progress_bar(const StepMetrics& metrics, double valid_loss, double seconds_left, std::int64_t steps,
                         int columns, bool utf8);
/// A plain line.
std::string progress_line(const StepMetrics& metrics, double seconds_left, std::int64_t steps);
/// 75 -> "1:15", 3700 -> "1:01:40".
std::string format_duration(double seconds);
/// 12345 -> "12.3k".
std::string format_count(double count);

}  // namespace weft
