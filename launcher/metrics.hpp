// What a run measures: the rows of metrics.jsonl.
#pragma once
#include <cstdint>
#include <optional>
#include <string>

namespace weft {

struct StepMetrics {
  std::int64_t step = 0;  ///< from 1
  double loss = 0;        ///< nats a target
  double lr = 0;
  double grad_norm = 0;
  std::int64_t tokens = 0;  ///< all tokens trained on so far
  double tokens_per_s = 0;
  double step_ms = 0;
  double tflops_per_rank = 0;
  double mfu = 0;  ///< 0 to 1; 0 where the peak rate is not known
  double comm_exposed_ms = 0;
  std::int64_t memory_peak_bytes = 0;
  double seconds = 0;  ///< since the run began, resumed time included
  bool skipped = false;
};

struct ValidMetrics {
  std::int64_t step = 0;
  double valid_loss = 0;            ///< nats a target
  std::optional<double> valid_bpb;  ///< bits a byte, where the bytes are known
  std::int64_t targets = 0;
  double seconds = 0;
};

/// What the summary of a report shows beside config.cfg; written once as run.json.
struct RunSummary {
  std::string status;  ///< "done", "stopped", "failed"
  std::string device;  ///< "2 ranks x 1 thread, Intel Xeon …"
  std::string layout;  ///< "dp 2 sp 2"
  std::string dtype;
  std::int64_t parameters = 0;
  std::int64_t ranks = 1;
  std::int64_t tokens = 0;
  std::int64_t steps = 0;
  double seconds = 0;
  std::optional<double> best_valid_loss;
  std::optional<double> tokens_per_s;  ///< median
};

}  // namespace weft
