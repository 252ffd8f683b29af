#include "launcher/plot.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <limits>

#include "launcher/html.hpp"

namespace weft {
namespace {

constexpr int margin_left = 64, margin_right = 16, margin_top = 40, margin_bottom = 46;

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
    return scale_ == AxisScale::log ? log_ticks(range_.low, range_.high) : linear_ticks(range_.low, range_.high, count);
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

std::string path_of(const std::vector<PlotPoint>& pixels) {
  std::string path;
  for (std::size_t i = 0; i < pixels.size(); ++i)
    path += fmt::format("{}{:.1f} {:.1f}", i == 0 ? "M" : "L", pixels[i].x, pixels[i].y);
  return path;
}

void draw_series(std::string& out, const Plot& plot, const Series& series, const AxisMap& x, const AxisMap& y) {
  std::vector<PlotPoint> run;
  const auto flush = [&] {
    if (run.empty()) return;
    const char* kind = series.style == SeriesStyle::faint ? "faint" : "line";
    if (run.size() > 1 && series.style != SeriesStyle::dots)
      out += fmt::format("<path class=\"{} c{}\" d=\"{}\"/>\n", kind, series.color, path_of(thinned(run)));
    if (series.style == SeriesStyle::marked || series.style == SeriesStyle::dots || run.size() == 1)
      for (const PlotPoint& p : run)
        out += fmt::format("<circle class=\"dot c{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"3\"/>\n", series.color, p.x, p.y);
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

void draw_frame(std::string& out, const Plot& plot, const AxisMap& x, const AxisMap& y) {
  const int right = plot.width - margin_right, bottom = plot.height - margin_bottom;
  for (const double tick : y.ticks(6)) {
    out += fmt::format("<line class=\"grid\" x1=\"{}\" x2=\"{}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>", margin_left, right,
                       y(tick), y(tick));
    out += fmt::format("<text class=\"tick\" x=\"{}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n", margin_left - 8,
                       y(tick) + 4, tick_label(tick));
  }
  for (const double tick : x.ticks(7)) {
    out += fmt::format("<line class=\"axis\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{}\" y2=\"{}\"/>", x(tick), x(tick),
                       bottom, bottom + 4);
    out += fmt::format("<text class=\"tick\" x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n", x(tick),
                       bottom + 18, tick_label(tick));
  }
  out += fmt::format("<line class=\"axis\" x1=\"{}\" x2=\"{}\" y1=\"{}\" y2=\"{}\"/>\n", margin_left, right, bottom,
                     bottom);
  out += fmt::format("<text class=\"title\" x=\"{}\" y=\"20\">{}</text>\n", margin_left - 48, escape_html(plot.title));
  out += fmt::format("<text class=\"label\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\n", right, plot.height - 8,
                     escape_html(plot.x_label));
  out +=
      fmt::format("<text class=\"label\" transform=\"translate(14 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
                  (margin_top + bottom) / 2, escape_html(plot.y_label));
}

void draw_legend(std::string& out, const Plot& plot) {
  int right = plot.width - margin_right;
  for (auto series = plot.series.rbegin(); series != plot.series.rend(); ++series) {
    if (series->name.empty()) continue;
    const int width = 30 + static_cast<int>(6.6 * static_cast<double>(series->name.size()));
    right -= width;
    out += fmt::format("<line class=\"line c{}\" x1=\"{}\" x2=\"{}\" y1=\"16\" y2=\"16\"/>", series->color, right,
                       right + 16);
    out += fmt::format("<text class=\"tick\" x=\"{}\" y=\"20\">{}</text>\n", right + 21, escape_html(series->name));
  }
}

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

std::string plot_svg(const Plot& plot) {
  Range xs, ys;
  for (const Series& series : plot.series) {
    for (const PlotPoint& point : series.points) {
      if (!shown(point.x, plot.x_scale) || !shown(point.y, plot.y_scale)) continue;
      xs.include(point.x);
      ys.include(point.y);
    }
  }
  AxisMap x(xs, plot.x_scale, margin_left, plot.width - margin_right);
  AxisMap y(ys, plot.y_scale, plot.height - margin_bottom, margin_top);
  y.pad(0.05, plot.y_scale != AxisScale::linear_from_zero);
  std::string out = fmt::format(
      "<svg class=\"plot\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" role=\"img\" "
      "aria-label=\"{}\">\n",
      plot.width, plot.height, escape_html(plot.title));
  draw_frame(out, plot, x, y);
  for (const Series& series : plot.series) draw_series(out, plot, series, x, y);
  draw_legend(out, plot);
  return out + "</svg>\n";
}

std::string plot_file(const Plot& plot) {
  std::string svg = plot_svg(plot);
  svg.insert(svg.find('\n') + 1, fmt::format("<style>{} svg{{background:var(--paper)}}</style>\n", plot_style()));
  return svg;
}

std::string_view plot_style() {
  return R"(
:root{--paper:#fff;--ink:#1c2330;--soft:#5b6575;--rule:#e3e7ee;
--c0:#2463d6;--c1:#e0662b;--c2:#1f9a6c;--c3:#8a4fd0;--c4:#c23a6b;--c5:#8a7a1e}
@media (prefers-color-scheme:dark){:root{
--paper:#14181f;--ink:#e6eaf1;--soft:#9aa5b5;--rule:#2a313c;
--c0:#6ea0ff;--c1:#ff9a62;--c2:#4fcf9d;--c3:#b98cf5;--c4:#f07ba3;--c5:#d3c25a}}
.plot{font:12px system-ui,sans-serif}
.plot text{fill:var(--soft)}
.plot .title{fill:var(--ink);font-size:14px;font-weight:600}
.plot .tick{font-variant-numeric:tabular-nums}
.plot .grid{stroke:var(--rule)}
.plot .axis{stroke:var(--soft)}
.plot .line{fill:none;stroke-width:1.8;stroke-linejoin:round}
.plot .faint{fill:none;stroke-width:1;opacity:.3}
.plot .c0{stroke:var(--c0)}.plot .c1{stroke:var(--c1)}.plot .c2{stroke:var(--c2)}
.plot .c3{stroke:var(--c3)}.plot .c4{stroke:var(--c4)}.plot .c5{stroke:var(--c5)}
.plot .dot.c0{fill:var(--c0)}.plot .dot.c1{fill:var(--c1)}.plot .dot.c2{fill:var(--c2)}
.plot .dot.c3{fill:var(--c3)}.plot .dot.c4{fill:var(--c4)}.plot .dot.c5{fill:var(--c5)}
)";
}

}  // namespace weft
