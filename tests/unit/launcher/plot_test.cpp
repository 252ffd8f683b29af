#include "launcher/plot.hpp"

#include <dlfcn.h>
#include <gmock/gmock.h>

#include <cmath>
#include <limits>
#include <regex>

#include "launcher/html.hpp"

namespace weft {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::Not;

const double nan = std::numeric_limits<double>::quiet_NaN();

std::size_t count(const std::string& text, const std::string& part) {
  std::size_t found = 0;
  for (std::size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++found;
  return found;
}

TEST(Plot, TicksAreRoundAndInside) {
  EXPECT_THAT(linear_ticks(0, 10, 6), ElementsAre(0, 2, 4, 6, 8, 10));
  EXPECT_THAT(linear_ticks(1.3, 6.2, 6), ElementsAre(2, 3, 4, 5, 6));
  EXPECT_THAT(log_ticks(0.05, 3), ElementsAre(testing::DoubleEq(0.05), testing::DoubleEq(0.1), testing::DoubleEq(0.2),
                                              testing::DoubleEq(0.5), testing::DoubleEq(1), testing::DoubleEq(2)));
  for (const auto& [low, high] : {std::pair{-3e-7, 4e-7}, {0.0, 123456.0}, {5.0, 5.0000001}}) {
    const auto ticks = linear_ticks(low, high, 6);
    EXPECT_GE(ticks.size(), 2u);
    EXPECT_LE(ticks.size(), 12u);
  }
  EXPECT_LE(log_ticks(1e-30, 1e30).size(), 12u);
}

TEST(Plot, LabelsAreShort) {
  EXPECT_EQ(tick_label(0), "0");
  EXPECT_EQ(tick_label(0.05), "0.05");
  EXPECT_EQ(tick_label(2000), "2k");
  EXPECT_EQ(tick_label(1.5e6), "1.5M");
  EXPECT_EQ(tick_label(3e-5), "3e-05");
  EXPECT_EQ(tick_label(0.0005), "0.0005");
}

TEST(Plot, StaysInsideItsFrameForAnyNumbers) {
  Plot plot{.title = "a < b & c", .x_label = "x", .y_label = "y", .series = {}};
  plot.series.push_back({"s", {{0, 1e300}, {1, -5}, {2, nan}, {3, 7}, {4, std::numeric_limits<double>::infinity()}}});
  for (const AxisScale scale : {AxisScale::linear, AxisScale::linear_from_zero, AxisScale::log}) {
    plot.y_scale = scale;
    const std::string svg = plot_svg(plot);
    EXPECT_THAT(svg, HasSubstr("a &lt; b &amp; c"));
    EXPECT_THAT(svg, Not(HasSubstr("nan")));
    EXPECT_THAT(svg, Not(HasSubstr("inf")));
    static const std::regex point(R"([ML](-?[\d.]+) (-?[\d.]+))");
    for (std::sregex_iterator match(svg.begin(), svg.end(), point), end; match != end; ++match) {
      EXPECT_GE(std::stod((*match)[1]), 0);
      EXPECT_LE(std::stod((*match)[1]), plot.width);
      EXPECT_GE(std::stod((*match)[2]), 0);
      EXPECT_LE(std::stod((*match)[2]), plot.height);
    }
  }
}

TEST(Plot, GapsBreakTheLine) {
  Plot plot{.title = "", .x_label = "", .y_label = "", .series = {}};
  plot.series.push_back({"", {{0, 1}, {1, 2}, {2, nan}, {3, 1}, {4, 2}}});
  EXPECT_EQ(count(plot_svg(plot), "<path"), 2u);
}

TEST(Plot, EmptyAndConstantSeriesDraw) {
  Plot plot{.title = "", .x_label = "", .y_label = "", .series = {}};
  EXPECT_THAT(plot_svg(plot), HasSubstr("</svg>"));
  plot.series.push_back({"", {{1, 4}}});
  EXPECT_EQ(count(plot_svg(plot), "<circle"), 1u);
  plot.series[0].points = {{1, 4}, {2, 4}};
  EXPECT_THAT(plot_svg(plot), Not(HasSubstr("nan")));
}

TEST(Plot, LongSeriesKeepTheirExtremes) {
  Plot plot{.title = "", .x_label = "", .y_label = "", .series = {}};
  Series series;
  for (int i = 0; i < 100000; ++i) series.points.push_back({static_cast<double>(i), i == 77777 ? 100.0 : 0.0});
  plot.series.push_back(series);
  const std::string svg = plot_svg(plot);
  EXPECT_LT(svg.size(), 40000u);
  plot.series[0].points[77777].y = 0;
  EXPECT_NE(svg, plot_svg(plot));
}

TEST(Plot, SmoothingKeepsAFallingLineInPlace) {
  std::vector<PlotPoint> line;
  for (int i = 0; i < 50; ++i) line.push_back({static_cast<double>(i), 100.0 - 2 * i});
  const auto mean = smoothed(line, 8);
  for (int i = 0; i < 50; ++i) EXPECT_NEAR(mean[static_cast<std::size_t>(i)].y, 100.0 - 2 * i, 1e-9);
  line[20].y = nan;
  EXPECT_TRUE(std::isnan(smoothed(line, 8)[20].y));
  EXPECT_FALSE(std::isnan(smoothed(line, 8)[21].y));
}

TEST(Plot, LegendStaysInsideAndAboveTheLines) {
  Plot plot{.title = "A title that takes up most of the width of a plot", .x_label = "", .y_label = "", .series = {}};
  for (int i = 0; i < 14; ++i) plot.series.push_back({"a-long-name-" + std::to_string(i), {{0, 1}, {1, 2}}});
  const std::string svg = plot_svg(plot);
  static const std::regex text(R"re(<text class="tick" x="([\d.]+)" y="([\d.]+)" text-anchor="start">)re");
  double lowest = 0;
  std::size_t entries = 0;
  for (std::sregex_iterator match(svg.begin(), svg.end(), text), end; match != end; ++match, ++entries) {
    EXPECT_LT(std::stod((*match)[1]) + 60, plot.width);
    EXPECT_GT(std::stod((*match)[2]), 20) << "on the title";
    lowest = std::max(lowest, std::stod((*match)[2]));
  }
  EXPECT_EQ(entries, 14u);
  static const std::regex grid(R"re(<line class="grid" [^>]*y1="([\d.]+)")re");
  for (std::sregex_iterator match(svg.begin(), svg.end(), grid), end; match != end; ++match)
    EXPECT_GT(std::stod((*match)[1]), lowest);
}

TEST(Plot, EveryColourOfASeriesHasAStyle) {
  Plot plot{.title = "", .x_label = "", .y_label = "", .series = {}};
  for (int i = 0; i < 20; ++i) plot.series.push_back({"", {{0, 1}, {1, 2}}, SeriesStyle::line, i});
  const std::string svg = plot_svg(plot), style = plot_style();
  static const std::regex color(R"re(class="line (c\d+)")re");
  for (std::sregex_iterator match(svg.begin(), svg.end(), color), end; match != end; ++match)
    EXPECT_THAT(style, HasSubstr(".plot ." + (*match)[1].str() + "{stroke"));
}

TEST(Plot, PngHasTheSizeAndTheLinesOfThePlot) {
  Plot plot{.title = "p", .x_label = "x", .y_label = "y", .series = {}};
  plot.series.push_back({"s", {{0, 1}, {1, 2}}, SeriesStyle::marked});
  const std::optional<std::string> png = plot_png(plot, 1.5);
  void* cairo = dlopen("libcairo.so.2", RTLD_NOW | RTLD_LOCAL);
  ASSERT_EQ(png.has_value(), cairo != nullptr);
  if (!png) return;
  ASSERT_GT(png->size(), 24u);
  EXPECT_EQ(png->substr(0, 8), "\x89PNG\r\n\x1a\n");
  const auto number = [&](std::size_t at) {
    std::uint32_t value = 0;
    for (std::size_t i = 0; i < 4; ++i) value = value << 8 | static_cast<unsigned char>((*png)[at + i]);
    return value;
  };
  EXPECT_EQ(number(16), 930u);
  EXPECT_EQ(number(20), 510u);
  EXPECT_EQ(plot_png(plot, 1.5), png);
  plot.series[0].points[1].y = 3;
  EXPECT_NE(plot_png(plot, 1.5), png);
}

TEST(Html, EscapesMarkupAndBrokenText) {
  EXPECT_EQ(escape_html("<a href=\"x\">&</a>"), "&lt;a href=&quot;x&quot;&gt;&amp;&lt;/a&gt;");
  EXPECT_EQ(escape_html("h\xC3\xA9\n\t"), "h\xC3\xA9\n\t");
  EXPECT_EQ(escape_html("\xFF\xC3(\x01"), "\xEF\xBF\xBD\xEF\xBF\xBD(\xEF\xBF\xBD");
  EXPECT_EQ(escape_html("\xED\xA0\x80"), "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
}

}  // namespace
}  // namespace weft
