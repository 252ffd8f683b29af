// weft lens: what sequence mixers cost side by side.
#include <fmt/core.h>
#include <unistd.h>

#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/base/clock.hpp"
#include "launcher/commands.hpp"
#include "launcher/lens_report.hpp"
#include "launcher/progress.hpp"
#include "models/registry.hpp"

namespace weft {
namespace {

/// One line that is written over, on a terminal only.
class LensProgress {
 public:
  void operator()(std::size_t done, std::size_t total, const std::string& next) {
    if (!::isatty(STDERR_FILENO)) return;
    const double passed = seconds_now() - began_;
    std::string left;
    if (done > 0 && done < total)
      left = fmt::format(", about {} left",
                         format_duration(passed / static_cast<double>(done) * static_cast<double>(total - done)));
    fmt::print(stderr, "\r\x1b[K");
    if (done < total) fmt::print(stderr, "{}/{}  {}{}", done, total, next, left);
    std::fflush(stderr);
  }

 private:
  double began_ = seconds_now();
};

}  // namespace

ExitStatus run_lens(const Options& options) {
  LensSpec spec;
  spec.models = options.lens.models;
  spec.lengths = options.lens.lengths;
  spec.widths = options.lens.widths;
  spec.batch = options.lens.batch;
  spec.repeats = options.lens.repeats;
  spec.seed = options.run.seed;
  for (const std::string& model : spec.models) find_mixer(model);
  Engine engine(options.run);
  spec.compute = compute_dtype(options.run.dtype, engine.traits());
  LensProgress progress;
  const LensResult result = measure_lens(
      engine, spec, [&](std::size_t done, std::size_t total, const std::string& next) { progress(done, total, next); });
  const std::filesystem::path page = write_lens(result, options.run.out);
  if (options.run.json)
    fmt::print("{}\n", lens_json(result).dump());
  else
    fmt::print("{}\n{}\n", format_lens(result), page.string());
  return ExitStatus::done;
}

}  // namespace weft
