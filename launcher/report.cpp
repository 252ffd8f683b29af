#include "launcher/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <sstream>

#include "core/base/error.hpp"
#include "core/io/atomic_file.hpp"
#include "launcher/html.hpp"
#include "launcher/page.hpp"
#include "launcher/plot.hpp"
#include "launcher/progress.hpp"
#include "launcher/run_files.hpp"

namespace weft {
namespace {

std::string read_text(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  if (file) content << file.rdbuf();
  return content.str();
}

// The value of a key of config.cfg.
std::string setting(const std::string& config, std::string_view key) {
  std::istringstream lines(config);
  for (std::string line; std::getline(lines, line);)
    if (line.starts_with(fmt::format("{} = ", key))) return line.substr(key.size() + 3);
  return {};
}

double median(std::vector<double> values) {
  std::erase_if(values, [](double value) { return !std::isfinite(value); });
  if (values.empty()) return 0;
  const auto middle = values.begin() + static_cast<std::ptrdiff_t>(values.size() / 2);
  std::ranges::nth_element(values, middle);
  return *middle;
}

template <class Rows, class X, class Y>
std::vector<PlotPoint> points(const Rows& rows, X x, Y y) {
  std::vector<PlotPoint> result;
  for (const auto& row : rows) result.push_back({static_cast<double>(x(row)), static_cast<double>(y(row))});
  return result;
}

// Raw values pale, their moving average on top.
void add_smoothed(Plot& plot, const std::string& name, std::vector<PlotPoint> raw, int color) {
  const std::size_t reach = std::min<std::size_t>(20, raw.size() / 30);
  std::vector<PlotPoint> mean = smoothed(raw, reach);
  if (reach > 0) plot.series.push_back({"", std::move(raw), SeriesStyle::faint, color});
  plot.series.push_back({name, std::move(mean), SeriesStyle::line, color});
}

struct Time {
  double unit;
  const char* label;
};
Time time_unit(double seconds) {
  return seconds < 300 ? Time{1, "seconds"} : seconds < 4 * 3600 ? Time{60, "minutes"} : Time{3600, "hours"};
}

std::string plots(const RunMetrics& metrics) {
  const auto step = [](const auto& row) { return row.step; };
  const double last = metrics.steps.empty() ? 0 : metrics.steps.back().seconds;
  const Time time = time_unit(last);
  const auto when = [&](const auto& row) { return row.seconds / time.unit; };
  std::vector<Plot> all;

  const auto loss_plot = [&](const std::string& title, const char* x_label, auto x) {
    Plot plot{.title = title, .x_label = x_label, .y_label = "nats a token", .series = {}};
    add_smoothed(plot, "training", points(metrics.steps, x, [](const StepMetrics& row) { return row.loss; }), 0);
    if (!metrics.valid.empty())
      plot.series.push_back({"validation",
                             points(metrics.valid, x, [](const ValidMetrics& row) { return row.valid_loss; }),
                             SeriesStyle::marked, 1});
    all.push_back(std::move(plot));
  };
  loss_plot("Loss over steps", "step", step);
  loss_plot("Loss over time", time.label, when);

  Plot rate{.title = "Throughput",
            .x_label = "step",
            .y_label = "tokens a second",
            .y_scale = AxisScale::linear_from_zero,
            .series = {}};
  add_smoothed(rate, "", points(metrics.steps, step, [](const StepMetrics& row) { return row.tokens_per_s; }), 2);
  all.push_back(std::move(rate));

  Plot lr{
      .title = "Learning rate", .x_label = "step", .y_label = "", .y_scale = AxisScale::linear_from_zero, .series = {}};
  lr.series.push_back(
      {"", points(metrics.steps, step, [](const StepMetrics& row) { return row.lr; }), SeriesStyle::line, 3});
  all.push_back(std::move(lr));

  Plot norm{.title = "Gradient norm",
            .x_label = "step",
            .y_label = "before clipping",
            .y_scale = AxisScale::log,
            .series = {}};
  add_smoothed(norm, "", points(metrics.steps, step, [](const StepMetrics& row) { return row.grad_norm; }), 4);
  all.push_back(std::move(norm));

  const bool exposed =
      std::ranges::any_of(metrics.steps, [](const StepMetrics& row) { return row.comm_exposed_ms > 0; });
  Plot step_time{.title = "Time of a step",
                 .x_label = "step",
                 .y_label = "milliseconds",
                 .y_scale = AxisScale::linear_from_zero,
                 .series = {}};
  add_smoothed(step_time, exposed ? "step" : "",
               points(metrics.steps, step, [](const StepMetrics& row) { return row.step_ms; }), 5);
  if (exposed)
    add_smoothed(step_time, "waiting for communication",
                 points(metrics.steps, step, [](const StepMetrics& row) { return row.comm_exposed_ms; }), 1);
  all.push_back(std::move(step_time));

  std::string html;
  for (const Plot& plot : all) html += fmt::format("<figure>{}</figure>\n", plot_svg(plot));
  return html;
}

struct Fact {
  std::string name;
  std::string value;
};

std::vector<Fact> facts(const RunMetrics& metrics, const std::optional<RunSummary>& summary,
                        const std::string& config) {
  std::vector<Fact> result;
  const auto add = [&](const char* name, const std::string& value) {
    if (!value.empty()) result.push_back({name, value});
  };
  const StepMetrics last = metrics.steps.empty() ? StepMetrics{} : metrics.steps.back();
  add("Model", fmt::format("{}: {} layers, {} wide, {} heads", setting(config, "model"), setting(config, "layers"),
                           setting(config, "d-model"), setting(config, "heads")));
  if (summary) add("Parameters", format_count(static_cast<double>(summary->parameters)));
  add("Steps", fmt::format("{} of {}", last.step, setting(config, "steps")));
  add("Batch", fmt::format("{} sequences of {} tokens", setting(config, "batch"), setting(config, "seq")));
  add("Tokens", format_count(static_cast<double>(last.tokens)));
  add("Time", format_duration(last.seconds));
  if (!metrics.steps.empty()) {
    add("Throughput", fmt::format("{} tokens/s", format_count(median([&] {
                                    std::vector<double> rates;
                                    for (const StepMetrics& row : metrics.steps) rates.push_back(row.tokens_per_s);
                                    return rates;
                                  }()))));
    std::vector<double> mfu;
    for (const StepMetrics& row : metrics.steps) mfu.push_back(row.mfu);
    std::vector<double> tflops;
    for (const StepMetrics& row : metrics.steps) tflops.push_back(row.tflops_per_rank);
    const double rate = median(tflops);
    if (median(mfu) > 0)
      add("MFU", rate >= 1 ? fmt::format("{:.0f}%, {:.2f} TFLOP/s a rank", 100 * median(mfu), rate)
                           : fmt::format("{:.0f}%, {:.0f} GFLOP/s a rank", 100 * median(mfu), 1e3 * rate));
    add("Training loss", fmt::format("{:.4f} nats a token", last.loss));
  }
  if (!metrics.valid.empty()) {
    const auto best = std::ranges::min_element(metrics.valid, {}, &ValidMetrics::valid_loss);
    std::string text = fmt::format("{:.4f} nats a token at step {}", best->valid_loss, best->step);
    if (best->valid_bpb) text += fmt::format(" ({:.3f} bits a byte)", *best->valid_bpb);
    add("Best validation loss", text);
  }
  if (summary) {
    add("Layout", summary->layout);
    add("Device", summary->device);
    add("Computed in", summary->dtype);
    if (summary->status != "done") add("Status", summary->status);
  }
  std::int64_t memory = 0;
  for (const StepMetrics& row : metrics.steps) memory = std::max(memory, row.memory_peak_bytes);
  if (memory > 0) add("Memory a rank", fmt::format("{:.0f} MiB", static_cast<double>(memory) / 0x1p20));
  return result;
}

}  // namespace

std::filesystem::path write_report(const std::filesystem::path& run) {
  const std::filesystem::path metrics_path = run / "metrics.jsonl";
  if (!std::filesystem::is_regular_file(metrics_path))
    fail_user("`{}` is not a run's folder: it has no metrics.jsonl", run.string());
  const RunMetrics metrics = read_metrics(metrics_path);
  const std::optional<RunSummary> summary = read_summary(run / "run.json");
  const std::string config = read_text(run / "config.cfg");
  const std::string sample = read_text(run / "sample.txt");

  std::string list;
  for (const Fact& fact : facts(metrics, summary, config))
    list += fmt::format("<div><dt>{}</dt><dd>{}</dd></div>\n", escape_html(fact.name), escape_html(fact.value));
  const std::filesystem::path absolute = std::filesystem::absolute(run).lexically_normal();
  const std::string name = absolute.filename().string();
  std::string html = fmt::format("<h1>{}</h1>\n<p class=\"where\">{}</p>\n<dl>\n{}</dl>\n", escape_html(name),
                                 escape_html(absolute.string()), list);
  html += fmt::format("<h2>Training</h2>\n<div class=\"plots\">\n{}</div>\n", plots(metrics));
  if (!sample.empty()) html += fmt::format("<h2>Sample</h2>\n<pre>{}</pre>\n", escape_html(sample));
  if (!config.empty())
    html += fmt::format("<details><summary>Configuration</summary><pre>{}</pre></details>\n", escape_html(config));
  const std::filesystem::path path = run / "report.html";
  write_file_atomic(path, html_page("Weft: " + name, html));
  return path;
}

}  // namespace weft
