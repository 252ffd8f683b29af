#include "launcher/plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "launcher/plot_canvas.hpp"

namespace weft {
namespace {

constexpr int margin_left = 64, margin_right = 16, margin_top = 40, margin_bottom = 46;
constexpr double title_left = 16, title_base = 20;

struct Range {
  double low = std::numeric_limits<double>::infinity();
  double high = -std::numeric_limits<double>::infinity();

  void include(double value) {
    low = std::min(low, value);
    high = std::max(high, value);
  }
  bool empty() const { return low > high; }
};

bool shown(double value, AxisScale scale) { return std::isfinite(value) && (scale != AxisScale::log || value > 0); }

// One dimension of the plot: from values to pixels.
class AxisMap {
 public:
  AxisMap(Range range, AxisScale scale, double from, double to) : scale_(scale), from_(from), to_(to) {
    if (range.empty()) range = {scale == AxisScale::log ? 1.0 : 0.0, scale == AxisScale::log ? 10.0 : 1.0};
    if (scale == AxisScale::linear_from_zero) range.include(0);
    if (range.low == range.high) {
      const double pad = scale == AxisScale::log ? 0 : std::max(std::abs(range.low) * 0.05, 1e-12);
      range = scale == AxisScale::log ? Range{range.low / 2, range.high * 2} : Range{range.low - pad, range.high + pad};
    }
    low_ = forward(range.low);
    high_ = forward(range.high);
    range_ = range;
  }

  void pad(double part, bool below) {
    const double extent = high_ - low_;
    high_ += part * extent;
    if (below) low_ -= part * extent;
    range_ = {backward(low_), backward(high_)};
  }
  double operator()(double value) const { return from_ + (forward(value) - low_) / (high_ - low_) * (to_ - from_); }
  std::vector<double> ticks(int count) const {
    if (scale_ == AxisScale::log) return log_ticks(range_.low, range_.high);
    std::vector<double> ticks = linear_ticks(range_.low, range_.high, count);
    if (scale_ == AxisScale::counts) std::erase_if(ticks, [](double tick) { return tick != std::round(tick); });
    return ticks;
  }

 private:
  double forward(double value) const { return scale_ == AxisScale::log ? std::log10(value) : value; }
  double backward(double value) const { return scale_ == AxisScale::log ? std::pow(10, value) : value; }

  AxisScale scale_;
  double from_, to_;
  double low_ = 0, high_ = 1;
  Range range_;
};

// More points than pixels only cost bytes: of each pixel column its extremes in their order.
std::vector<PlotPoint> thinned(const std::vector<PlotPoint>& pixels) {
  if (pixels.size() < 1500) return pixels;
  std::vector<PlotPoint> result;
  for (std::size_t i = 0; i < pixels.size();) {
    std::size_t end = i, low = i, high = i;
    for (; end < pixels.size() && std::floor(pixels[end].x) == std::floor(pixels[i].x); ++end) {
      if (pixels[end].y < pixels[low].y) low = end;
      if (pixels[end].y > pixels[high].y) high = end;
    }
    result.push_back(pixels[std::min(low, high)]);
    if (low != high) result.push_back(pixels[std::max(low, high)]);
    i = end;
  }
  return result;
}

void draw_series(PlotCanvas& canvas, const Plot& plot, const Series& series, const AxisMap& x, const AxisMap& y) {
  const int color = series.color % static_cast<int>(series_inks.size());
  std::vector<PlotPoint> run;
  const auto flush = [&] {
    if (run.size() > 1 && series.style != SeriesStyle::dots)
      canvas.line(thinned(run), color, series.style == SeriesStyle::faint);
    if (series.style == SeriesStyle::marked || series.style == SeriesStyle::dots || run.size() == 1)
      for (const PlotPoint& point : run) canvas.dot(point, color);
    run.clear();
  };
  for (const PlotPoint& point : series.points) {
    if (shown(point.x, plot.x_scale) && shown(point.y, plot.y_scale))
      run.push_back({x(point.x), y(point.y)});
    else
      flush();
  }
  flush();
}

void draw_frame(PlotCanvas& canvas, const Plot& plot, int top, const AxisMap& x, const AxisMap& y) {
  const double left = margin_left, right = plot.width - margin_right, bottom = plot.height - margin_bottom;
  for (const double tick : y.ticks(6)) {
    canvas.rule(RuleKind::grid, {left, y(tick)}, {right, y(tick)});
    canvas.text({left - 8, y(tick) + 4}, tick_label(tick), TextRole::tick, TextAnchor::end);
  }
  for (const double tick : x.ticks(7)) {
    canvas.rule(RuleKind::axis, {x(tick), bottom}, {x(tick), bottom + 4});
    canvas.text({x(tick), bottom + 18}, tick_label(tick), TextRole::tick, TextAnchor::middle);
  }
  canvas.rule(RuleKind::axis, {left, bottom}, {right, bottom});
  canvas.text({title_left, title_base}, plot.title, TextRole::title, TextAnchor::start);
  canvas.text({right, plot.height - 8.0}, plot.x_label, TextRole::label, TextAnchor::end);
  canvas.upright_text({14, (top + bottom) / 2}, plot.y_label, TextRole::label);
}

/// Names of series: right of the title where they fit, else in lines below it.
class Legend {
 public:
  explicit Legend(const Plot& plot) {
    const double right = plot.width - margin_right;
    double whole = 0;
    for (const Series& series : plot.series) whole += width_of(series);
    const double title_end = title_left + title_letter * static_cast<double>(letters(plot.title)) + title_letter;
    const bool beside = title_end + whole <= right;
    double x = beside ? right - whole : title_left, base = beside ? title_base : title_base + line_height;
    for (const Series& series : plot.series) {
      if (series.name.empty()) continue;
      if (!beside && x > title_left && x + width_of(series) > right) {
        x = title_left;
        base += line_height;
      }
      entries_.push_back({&series, {x, base}});
      x += width_of(series);
    }
    if (!beside) bottom_ = base;
  }

  /// Where the plot's area begins.
  int top() const { return static_cast<int>(bottom_) + margin_top - static_cast<int>(title_base); }

  void draw(PlotCanvas& canvas) const {
    for (const auto& [series, at] : entries_) {
      canvas.line({{at.x, at.y - 4}, {at.x + 16, at.y - 4}}, series->color % static_cast<int>(series_inks.size()),
                  false);
      canvas.text({at.x + 21, at.y}, series->name, TextRole::tick, TextAnchor::start);
    }
  }

 private:
  struct Entry {
    const Series* series;
    PlotPoint at;
  };
  static constexpr double title_letter = 8.2, letter = 6.8, line_height = 18;

  static std::size_t letters(const std::string& text) {
    return static_cast<std::size_t>(std::ranges::count_if(text, [](char c) { return (c & 0xc0) != 0x80; }));
  }
  static double width_of(const Series& series) {
    return series.name.empty() ? 0 : 30 + letter * static_cast<double>(letters(series.name));
  }

  std::vector<Entry> entries_;
  double bottom_ = title_base;
};

}  // namespace

std::vector<double> linear_ticks(double low, double high, int count) {
  const double rough = (high - low) / std::max(1, count - 1);
  if (!(rough > 0) || !std::isfinite(rough)) return {low};
  const double power = std::pow(10, std::floor(std::log10(rough)));
  double step = 10 * power;
  for (const double factor : {1.0, 2.0, 5.0})
    if (factor * power >= rough * (1 - 1e-9)) {
      step = factor * power;
      break;
    }
  std::vector<double> ticks;
  const auto first = static_cast<std::int64_t>(std::ceil(low / step - 1e-9));
  const auto last = static_cast<std::int64_t>(std::floor(high / step + 1e-9));
  for (std::int64_t i = first; i <= last; ++i) ticks.push_back(static_cast<double>(i) * step);
  return ticks;
}

std::vector<double> log_ticks(double low, double high) {
  const double decades = std::log10(high / low);
  std::vector<double> ticks;
  const int first = static_cast<int>(std::floor(std::log10(low))), last = static_cast<int>(std::ceil(std::log10(high)));
  const int stride = std::max(1, static_cast<int>(decades / 6));
  for (int exponent = first; exponent <= last; ++exponent) {
    if ((exponent - first) % stride != 0) continue;
    for (const double factor : {1.0, 2.0, 5.0}) {
      const double tick = factor * std::pow(10, exponent);
      if ((factor == 1.0 || decades < 3) && tick >= low * (1 - 1e-9) && tick <= high * (1 + 1e-9))
        ticks.push_back(tick);
    }
  }
  return ticks;
}

std::string tick_label(double value) {
  const double size = std::abs(value);
  if (size < 1e-15) return "0";
  constexpr struct {
    double unit;
    const char* letter;
  } units[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}};
  for (const auto& [unit, letter] : units)
    if (size >= unit * 0.9999) return fmt::format("{:.4g}{}", value / unit, letter);
  if (size >= 0.9999e-4) return fmt::format("{:.4g}", value);
  std::string text = fmt::format("{:.1e}", value);
  if (const std::size_t zero = text.find(".0e"); zero != std::string::npos) text.erase(zero, 2);
  return text;
}

std::vector<PlotPoint> smoothed(const std::vector<PlotPoint>& points, std::size_t reach) {
  std::vector<PlotPoint> result = points;
  for (std::size_t i = 0; i < points.size(); ++i) {
    if (!std::isfinite(points[i].y)) continue;
    // Shorter towards the ends but never lopsided: a falling curve keeps its place.
    const std::size_t side = std::min({reach, i, points.size() - 1 - i});
    double sum = 0, count = 0;
    for (std::size_t j = i - side; j <= i + side; ++j) {
      if (!std::isfinite(points[j].y)) continue;
      sum += points[j].y;
      count += 1;
    }
    result[i].y = sum / count;
  }
  return result;
}

void draw_plot(const Plot& plot, PlotCanvas& canvas) {
  Range xs, ys;
  for (const Series& series : plot.series) {
    for (const PlotPoint& point : series.points) {
      if (!shown(point.x, plot.x_scale) || !shown(point.y, plot.y_scale)) continue;
      xs.include(point.x);
      ys.include(point.y);
    }
  }
  const Legend legend(plot);
  AxisMap x(xs, plot.x_scale, margin_left, plot.width - margin_right);
  AxisMap y(ys, plot.y_scale, plot.height - margin_bottom, legend.top());
  y.pad(0.05, plot.y_scale != AxisScale::linear_from_zero);
  draw_frame(canvas, plot, legend.top(), x, y);
  for (const Series& series : plot.series) draw_series(canvas, plot, series, x, y);
  legend.draw(canvas);
}

}  // namespace weft
