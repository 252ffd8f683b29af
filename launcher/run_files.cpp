#include "launcher/run_files.hpp"

#include <fstream>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/base/error.hpp"
#include "core/io/json_lines.hpp"

namespace weft {
namespace {

using nlohmann::json;

double number(const json& row, const char* key) {
  const auto found = row.find(key);
  if (found == row.end()) return 0;
  return found->is_number() ? found->get<double>() : std::numeric_limits<double>::quiet_NaN();
}

std::int64_t whole(const json& row, const char* key) {
  const auto found = row.find(key);
  return found != row.end() && found->is_number_integer() ? found->get<std::int64_t>() : 0;
}

std::string words(const json& row, const char* key) {
  const auto found = row.find(key);
  return found != row.end() && found->is_string() ? found->get<std::string>() : std::string();
}

std::optional<double> maybe(const json& row, const char* key) {
  const auto found = row.find(key);
  return found != row.end() && found->is_number() ? std::optional(found->get<double>()) : std::nullopt;
}

}  // namespace

json to_json(const StepMetrics& m) {
  json row = {{"step", m.step},
              {"loss", m.loss},
              {"lr", m.lr},
              {"grad_norm", m.grad_norm},
              {"tokens", m.tokens},
              {"tokens_per_s", m.tokens_per_s},
              {"step_ms", m.step_ms},
              {"tflops_per_rank", m.tflops_per_rank},
              {"mfu", m.mfu},
              {"comm_exposed_ms", m.comm_exposed_ms},
              {"memory_peak_bytes", m.memory_peak_bytes},
              {"seconds", m.seconds}};
  if (m.skipped) row["skipped"] = true;
  return row;
}

json to_json(const ValidMetrics& m) {
  json row = {{"step", m.step}, {"valid_loss", m.valid_loss}, {"targets", m.targets}, {"seconds", m.seconds}};
  if (m.valid_bpb) row["valid_bpb"] = *m.valid_bpb;
  return row;
}

json to_json(const RunSummary& s) {
  json row = {{"status", s.status}, {"device", s.device},         {"layout", s.layout},
              {"dtype", s.dtype},   {"parameters", s.parameters}, {"ranks", s.ranks},
              {"tokens", s.tokens}, {"steps", s.steps},           {"seconds", s.seconds}};
  if (s.best_valid_loss) row["best_valid_loss"] = *s.best_valid_loss;
  if (s.tokens_per_s) row["tokens_per_s"] = *s.tokens_per_s;
  return row;
}

RunMetrics read_metrics(const std::filesystem::path& path) {
  RunMetrics result;
  read_json_lines(path, [&](const json& row) {
    if (!row.is_object() || !row.contains("step"))
      fail_user("{}: a row has no `step`; is it a run's metrics?", path.string());
    if (row.contains("valid_loss"))
      result.valid.push_back({whole(row, "step"), number(row, "valid_loss"), maybe(row, "valid_bpb"),
                              whole(row, "targets"), number(row, "seconds")});
    else
      result.steps.push_back({.step = whole(row, "step"),
                              .loss = number(row, "loss"),
                              .lr = number(row, "lr"),
                              .grad_norm = number(row, "grad_norm"),
                              .tokens = whole(row, "tokens"),
                              .tokens_per_s = number(row, "tokens_per_s"),
                              .step_ms = number(row, "step_ms"),
                              .tflops_per_rank = number(row, "tflops_per_rank"),
                              .mfu = number(row, "mfu"),
                              .comm_exposed_ms = number(row, "comm_exposed_ms"),
                              .memory_peak_bytes = whole(row, "memory_peak_bytes"),
                              .seconds = number(row, "seconds"),
                              .skipped = row.value("skipped", false)});
  });
  return result;
}

std::optional<RunSummary> read_summary(const std::filesystem::path& path) {
  std::ifstream file(path);
  const json row = json::parse(file, nullptr, false);
  if (!row.is_object()) return std::nullopt;
  RunSummary summary{.status = words(row, "status"),
                     .device = words(row, "device"),
                     .layout = words(row, "layout"),
                     .dtype = words(row, "dtype"),
                     .parameters = whole(row, "parameters"),
                     .ranks = whole(row, "ranks"),
                     .tokens = whole(row, "tokens"),
                     .steps = whole(row, "steps"),
                     .seconds = number(row, "seconds"),
                     .best_valid_loss = maybe(row, "best_valid_loss"),
                     .tokens_per_s = maybe(row, "tokens_per_s")};
  return summary;
}

}  // namespace weft
