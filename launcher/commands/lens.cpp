// weft lens: what sequence mixers cost side by side, on one rank and over those that there are.
#include <fmt/core.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <nlohmann/json.hpp>

#include "core/base/clock.hpp"
#include "launcher/commands.hpp"
#include "launcher/lens/report.hpp"
#include "launcher/progress.hpp"
#include "launcher/ranks.hpp"
#include "launcher/signals.hpp"
#include "launcher/standard_output.hpp"
#include "models/registry.hpp"
#include "parallel/comm/text_exchange.hpp"

namespace weft {
namespace {

/// One line that is written over, on a terminal only.
class LensBar {
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

/// Numbers of ranks above one.
std::vector<int> rank_counts(const std::vector<std::int64_t>& asked, int ranks) {
  std::vector<int> counts;
  for (const std::int64_t count : asked) {
    if (count > ranks)
      fail_user("--rank-counts: found {}, but there {} {} rank{}; mpirun -n {} starts as many", count,
                ranks == 1 ? "is" : "are", ranks, ranks == 1 ? "" : "s", count);
    if (count > 1) counts.push_back(static_cast<int>(count));
  }
  if (asked.empty()) {
    for (int count = 2; count < ranks; count *= 2) counts.push_back(count);
    if (ranks > 1) counts.push_back(ranks);
  }
  counts.erase(std::unique(counts.begin(), counts.end()), counts.end());
  return counts;
}

Axis axis_of(const std::string& name) {
  for (const Axis axis : {Axis::dp, Axis::sp, Axis::tp})
    if (name_of(axis) == name) return axis;
  fail_user("--axes: found {}, expected sp, tp or dp", name);
}

LensSpec spec_of(const Options& options, int ranks) {
  LensSpec spec;
  spec.models = options.lens.models;
  spec.lengths = options.lens.lengths;
  spec.widths = options.lens.widths;
  spec.batches = options.lens.batches;
  spec.ranks = rank_counts(options.lens.rank_counts, ranks);
  for (const std::string& name : options.lens.axes)
    if (const Axis axis = axis_of(name); !spec.ranks.empty() && std::ranges::find(spec.axes, axis) == spec.axes.end())
      spec.axes.push_back(axis);
  spec.relay_parts = options.layout.relay_parts;
  spec.repeats = options.lens.repeats;
  spec.recall_steps = options.lens.recall_steps;
  spec.seed = options.run.seed;
  for (const std::string& model : spec.models) find_mixer(model);
  return spec;
}

}  // namespace

ExitStatus run_lens(const Options& options) {
  return with_session(options, [&](Session& session) {
    LensSpec spec = spec_of(options, session.mpi().size());
    spec.compute = session.compute();
    LensBar bar;
    LensHooks hooks;
    hooks.progress = [&](std::size_t done, std::size_t total, const std::string& next) { bar(done, total, next); };
    hooks.stop = [] { return stop_signal() != 0; };
    const std::optional<LensResult> result = measure_lens(session.worker(), spec, hooks);
    if (!result) {
      if (session.main_rank()) say_error(options.command, "stopped by a signal; nothing was written");
      return ExitStatus::stopped;
    }
    constexpr double patience_seconds = 600;
    session.log().set_phase("report", patience_seconds);
    from_first_rank(session.world(), [&] {
      const std::filesystem::path page = write_lens(*result, options.run.out);
      if (options.run.json)
        print_output("{}\n", lens_json(*result).dump());
      else
        print_output("{}\n{}\n", format_lens(*result), page.string());
      return std::string{};
    });
    return ExitStatus::done;
  });
}

}  // namespace weft
