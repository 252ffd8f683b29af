// What a plot is drawn on: SVG text or the pixels of a PNG. Coordinates are the plot's, y downwards.
#pragma once
#include <array>
#include <cstdint>
#include <string_view>
#include <vector>

#include "launcher/plot.hpp"

namespace weft {

/// A colour on light and on dark paper, as 0xRRGGBB.
struct PlotInk {
  std::string_view name;
  std::uint32_t light, dark;
};

inline constexpr std::array<PlotInk, 4> plot_inks = {{{"paper", 0xffffff, 0x14181f},
                                                      {"ink", 0x1c2330, 0xe6eaf1},
                                                      {"soft", 0x5b6575, 0x9aa5b5},
                                                      {"rule", 0xe3e7ee, 0x2a313c}}};
/// Of series, by Series::color.
inline constexpr std::array<PlotInk, 12> series_inks = {{{"c0", 0x2463d6, 0x6ea0ff},
                                                         {"c1", 0xe0662b, 0xff9a62},
                                                         {"c2", 0x1f9a6c, 0x4fcf9d},
                                                         {"c3", 0x8a4fd0, 0xb98cf5},
                                                         {"c4", 0xc23a6b, 0xf07ba3},
                                                         {"c5", 0x8a7a1e, 0xd3c25a},
                                                         {"c6", 0x1791a8, 0x58cbe0},
                                                         {"c7", 0x7a4a2b, 0xc99a78},
                                                         {"c8", 0x4d5fb8, 0x98a6f0},
                                                         {"c9", 0x5f8a1f, 0xa4cf5f},
                                                         {"c10", 0xb04fb0, 0xe58fe5},
                                                         {"c11", 0x6b7280, 0xaab3c2}}};

enum class TextRole : std::uint8_t { title, label, tick };
enum class TextAnchor : std::uint8_t { start, middle, end };
enum class RuleKind : std::uint8_t { grid, axis };

class PlotCanvas {
 public:
  virtual ~PlotCanvas() = default;
  virtual void rule(RuleKind kind, PlotPoint from, PlotPoint to) = 0;
  /// A series' line through `points`, two or more; `faint` is thin and pale.
  virtual void line(const std::vector<PlotPoint>& points, int color, bool faint) = 0;
  virtual void dot(PlotPoint at, int color) = 0;
  virtual void text(PlotPoint at, std::string_view words, TextRole role, TextAnchor anchor) = 0;
  /// Words that go upwards, centred at `at`.
  virtual void upright_text(PlotPoint at, std::string_view words, TextRole role) = 0;
};

inline constexpr double plot_line_width = 1.8, plot_faint_width = 1, plot_faint_alpha = 0.3, plot_dot_radius = 3;
inline constexpr double plot_font_size = 12, plot_title_size = 14;

void draw_plot(const Plot& plot, PlotCanvas& canvas);

}  // namespace weft
