// Line plots as SVG and PNG.
#pragma once
#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace weft {

struct PlotPoint {
  double x = 0;
  double y = 0;
};

enum class SeriesStyle : std::uint8_t {
  line,
  faint,   ///< a thin pale line: raw values behind a smoothed line of the same colour
  marked,  ///< a line with a dot at each point
  dots,    ///< these alone
};

struct Series {
  std::string name;               ///< for the legend; empty: none
  std::vector<PlotPoint> points;  ///< ascending x; points that are not finite (or not positive on a log axis) are gaps
  SeriesStyle style = SeriesStyle::line;
  int color = 0;  ///< of a palette of twelve, over and over
};

enum class AxisScale : std::uint8_t {
  linear,
  linear_from_zero,
  counts,  ///< linear, with ticks at whole numbers alone
  log
};

struct Plot {
  std::string title;
  std::string x_label;
  std::string y_label;
  AxisScale x_scale = AxisScale::linear;
  AxisScale y_scale = AxisScale::linear;
  std::vector<Series> series;
  int width = 620;
  int height = 340;
};

/// One <svg> element for a page that has plot_style().
std::string plot_svg(const Plot& plot);
/// A file of its own, style included.
std::string plot_file(const Plot& plot);
/// As PNG on light paper, `scale` pixels a unit; nothing where the system has no libcairo.so.2.
std::optional<std::string> plot_png(const Plot& plot, double scale = 2);
/// CSS of the plots, for light and dark.
std::string plot_style();

/// At most about `count` round numbers that span [low, high]: steps of 1, 2 or 5 times a power of ten.
std::vector<double> linear_ticks(double low, double high, int count);
/// Powers of ten in [low, high] (both positive), with 2 and 5 between them where there are few.
std::vector<double> log_ticks(double low, double high);
/// "0.05", "2k", "1.5M", "3e-05".
std::string tick_label(double value);
/// Each point's mean with `reach` neighbours on either side; gaps stay gaps.
std::vector<PlotPoint> smoothed(const std::vector<PlotPoint>& points, std::size_t reach);

}  // namespace weft
