#include "launcher/progress.hpp"

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "core/base/clock.hpp"
#include "launcher/environment.hpp"

namespace weft {
namespace {

constexpr double redraw_seconds = 0.1;

bool locale_is_utf8() {
  for (const char* name : {"LC_ALL", "LC_CTYPE", "LANG"}) {
    if (const auto value = environment(name))
      return value->find("UTF-8") != std::string::npos || value->find("utf8") != std::string::npos;
  }
  return false;
}

// Eighths of a cell make the bar move smoothly.
std::string bar(double part, int width, bool utf8) {
  const double cells = std::clamp(part, 0.0, 1.0) * width;
  const int full = std::min(width, static_cast<int>(cells));
  std::string text;
  if (!utf8) {
    text.assign(static_cast<std::size_t>(full), '=');
    if (full < width) text += full > 0 || cells > 0 ? ">" : " ";
    text.resize(static_cast<std::size_t>(width), ' ');
    return "[" + text + "]";
  }
  constexpr const char* eighths[] = {" ", "▏", "▎", "▍", "▌", "▋", "▊", "▉"};
  for (int i = 0; i < full; ++i) text += "█";
  if (full < width) {
    text += eighths[static_cast<int>((cells - full) * 8)];
    text.append(static_cast<std::size_t>(width - full - 1), ' ');
  }
  return "▕" + text + "▏";
}

}  // namespace

std::string format_duration(double seconds) {
  if (!std::isfinite(seconds) || seconds < 0) return "?";
  const auto total = static_cast<std::int64_t>(std::llround(seconds));
  const std::int64_t hours = total / 3600, minutes = total / 60 % 60, rest = total % 60;
  return hours > 0 ? fmt::format("{}:{:02}:{:02}", hours, minutes, rest) : fmt::format("{}:{:02}", minutes, rest);
}

std::string format_count(double count) {
  constexpr const char* units[] = {"", "k", "M", "G", "T", "P"};
  std::size_t unit = 0;
  // 999.95 would be shown as 1000.0.
  while (std::abs(count) >= 999.5 && unit + 1 < std::size(units)) {
    count /= 1000;
    ++unit;
  }
  if (unit == 0) return fmt::format("{:.0f}", count);
  return fmt::format(fmt::runtime(std::abs(count) < 9.995   ? "{:.2f}{}"
                                  : std::abs(count) < 99.95 ? "{:.1f}{}"
                                                            : "{:.0f}{}"),
                     count, units[unit]);
}

std::string progress_bar(const StepMetrics& m, double valid_loss, double seconds_left, std::int64_t steps, int columns,
                         bool utf8) {
  const std::string head = fmt::format("{}/{} ", m.step, steps);
  // From the right the least important goes first where the terminal is narrow.
  std::vector<std::string> parts = {fmt::format(" loss {:.3f}", m.loss)};
  if (seconds_left >= 0) parts.push_back(fmt::format("  {} left", format_duration(seconds_left)));
  parts.push_back(fmt::format("  {} tok/s", format_count(m.tokens_per_s)));
  if (valid_loss >= 0) parts.push_back(fmt::format("  valid {:.3f}", valid_loss));
  if (m.mfu > 0) parts.push_back(fmt::format("  MFU {:.0f}%", 100 * m.mfu));
  const int room = columns - 1;
  constexpr int least_bar = 8, most_bar = 40;
  const auto used = [&] {
    std::size_t size = head.size();
    for (const std::string& part : parts) size += part.size();
    return static_cast<int>(size);
  };
  while (parts.size() > 1 && used() + least_bar + 2 > room) parts.pop_back();
  std::string line = head;
  const int width = std::min(most_bar, room - used() - 2);
  if (width >= 3) line += bar(steps > 0 ? static_cast<double>(m.step) / static_cast<double>(steps) : 0, width, utf8);
  for (const std::string& part : parts) line += part;
  if (width < 3 && static_cast<int>(line.size()) > room) line.resize(static_cast<std::size_t>(std::max(0, room)));
  return line;
}

std::string progress_line(const StepMetrics& m, double seconds_left, std::int64_t steps) {
  std::string line =
      fmt::format("step {}/{}  loss {:.4f}  lr {:.2e}  norm {:.3f}  {} tok/s  {:.{}f} ms", m.step, steps, m.loss, m.lr,
                  m.grad_norm, format_count(m.tokens_per_s), m.step_ms, m.step_ms < 10 ? 1 : 0);
  if (m.mfu > 0) line += fmt::format("  MFU {:.1f}%", 100 * m.mfu);
  if (m.skipped) line += "  skipped";
  if (seconds_left >= 0) line += fmt::format("  {} left", format_duration(seconds_left));
  return line;
}

ProgressOptions detect_progress(bool quiet) {
  ProgressOptions options;
  options.quiet = quiet;
  options.utf8 = locale_is_utf8();
  winsize size{};
  if (::isatty(STDERR_FILENO))
    options.columns = ::ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 80;
  else if (const auto columns = environment(launch_variable::terminal_columns))
    options.columns = std::atoi(columns->c_str());
  return options;
}

Progress::Progress(ProgressOptions options) : options_(options), began_(seconds_now()) {}

Progress::~Progress() { finish(); }

double Progress::seconds_left() const {
  const std::int64_t steps_left = options_.steps - last_.step;
  if (step_seconds_ <= 0) return -1;
  double left = static_cast<double>(steps_left) * step_seconds_;
  if (options_.max_seconds > 0) left = std::min(left, options_.max_seconds - (seconds_now() - began_));
  return std::max(0.0, left);
}

void Progress::step(const StepMetrics& metrics) {
  if (options_.quiet) return;
  // A mean over all steps so far, validation and checkpoints included; the first step, which also warms caches, does
  // not count.
  const double now = seconds_now();
  const std::int64_t later = metrics.step - options_.first_step - 1;
  if (later <= 0) {
    first_step_at_ = now;
    step_seconds_ = metrics.step_ms / 1e3;
  } else {
    step_seconds_ = (now - first_step_at_) / static_cast<double>(later);
  }
  last_ = metrics;
  const bool last = metrics.step >= options_.steps;
  if (options_.columns > 0) {
    if (last || now - drawn_at_ >= redraw_seconds) draw();
    return;
  }
  const bool due = drawn_at_ < 0 || last || now - drawn_at_ >= options_.line_seconds;
  if (due && (last || metrics.step % options_.log_every == 0 || drawn_at_ < 0)) {
    put(progress_line(metrics, last ? -1 : seconds_left(), options_.steps) + "\n");
    drawn_at_ = now;
  }
}

void Progress::valid(const ValidMetrics& metrics) {
  valid_loss_ = metrics.valid_loss;
  std::string line = fmt::format("step {}: validation loss {:.4f}", metrics.step, metrics.valid_loss);
  if (metrics.valid_bpb) line += fmt::format(", {:.4f} bits a byte", *metrics.valid_bpb);
  note(line);
}

// A full disk or a reader that went away must not end a training.
void Progress::put(std::string_view text) const {
  std::fwrite(text.data(), 1, text.size(), options_.stream);
  std::fflush(options_.stream);
}

void Progress::note(std::string_view line) {
  if (options_.quiet) return;
  clear();
  put(std::string(line) + "\n");
  if (options_.columns > 0 && last_.step > 0) draw();
}

void Progress::draw() {
  const std::string text =
      progress_bar(last_, valid_loss_, seconds_left(), options_.steps, options_.columns, options_.utf8);
  // One write, and the rest of the old line is cleared after the new text: no flicker.
  put("\r" + text + "\033[K");
  bar_shown_ = true;
  drawn_at_ = seconds_now();
}

void Progress::clear() {
  if (bar_shown_) put("\r\033[K");
  bar_shown_ = false;
}

void Progress::finish() {
  if (!bar_shown_) return;
  put("\n");
  bar_shown_ = false;
}

}  // namespace weft
