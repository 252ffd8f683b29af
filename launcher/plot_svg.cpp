// Plots as SVG, whose colours follow the reader's light or dark page.
#include <fmt/format.h>

#include "launcher/html.hpp"
#include "launcher/plot_canvas.hpp"

namespace weft {
namespace {

std::string path_of(const std::vector<PlotPoint>& points) {
  std::string path;
  for (std::size_t i = 0; i < points.size(); ++i)
    path += fmt::format("{}{:.1f} {:.1f}", i == 0 ? "M" : "L", points[i].x, points[i].y);
  return path;
}

class SvgCanvas final : public PlotCanvas {
 public:
  void rule(RuleKind kind, PlotPoint from, PlotPoint to) override {
    out += fmt::format("<line class=\"{}\" x1=\"{:.1f}\" x2=\"{:.1f}\" y1=\"{:.1f}\" y2=\"{:.1f}\"/>\n",
                       kind == RuleKind::grid ? "grid" : "axis", from.x, to.x, from.y, to.y);
  }
  void line(const std::vector<PlotPoint>& points, int color, bool faint) override {
    out += fmt::format("<path class=\"{} c{}\" d=\"{}\"/>\n", faint ? "faint" : "line", color, path_of(points));
  }
  void dot(PlotPoint at, int color) override {
    out += fmt::format("<circle class=\"dot c{}\" cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"{}\"/>\n", color, at.x, at.y,
                       plot_dot_radius);
  }
  void text(PlotPoint at, std::string_view words, TextRole role, TextAnchor anchor) override {
    constexpr std::string_view anchors[] = {"start", "middle", "end"};
    out += fmt::format("<text class=\"{}\" x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"{}\">{}</text>\n", name_of(role),
                       at.x, at.y, anchors[static_cast<std::size_t>(anchor)], escape_html(words));
  }
  void upright_text(PlotPoint at, std::string_view words, TextRole role) override {
    out += fmt::format(
        "<text class=\"{}\" transform=\"translate({:.1f} {:.1f}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
        name_of(role), at.x, at.y, escape_html(words));
  }

  std::string out;

 private:
  static std::string_view name_of(TextRole role) {
    constexpr std::string_view names[] = {"title", "label", "tick"};
    return names[static_cast<std::size_t>(role)];
  }
};

std::string variables(bool dark) {
  std::string text;
  const auto add = [&](const PlotInk& ink) {
    text += fmt::format("--{}:#{:06x};", ink.name, dark ? ink.dark : ink.light);
  };
  for (const PlotInk& ink : plot_inks) add(ink);
  for (const PlotInk& ink : series_inks) add(ink);
  return text;
}

}  // namespace

std::string plot_svg(const Plot& plot) {
  SvgCanvas canvas;
  draw_plot(plot, canvas);
  return fmt::format(
      "<svg class=\"plot\" xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {}\" role=\"img\" "
      "aria-label=\"{}\">\n{}</svg>\n",
      plot.width, plot.height, escape_html(plot.title), canvas.out);
}

std::string plot_file(const Plot& plot) {
  std::string svg = plot_svg(plot);
  svg.insert(svg.find('\n') + 1, fmt::format("<style>{} svg{{background:var(--paper)}}</style>\n", plot_style()));
  return svg;
}

std::string plot_style() {
  std::string style = fmt::format("\n:root{{{}}}\n@media (prefers-color-scheme:dark){{:root{{{}}}}}\n",
                                  variables(false), variables(true));
  style += fmt::format(R"(.plot{{font:{}px system-ui,sans-serif}}
.plot text{{fill:var(--soft)}}
.plot .title{{fill:var(--ink);font-size:{}px;font-weight:600}}
.plot .tick{{font-variant-numeric:tabular-nums}}
.plot .grid{{stroke:var(--rule)}}
.plot .axis{{stroke:var(--soft)}}
.plot .line{{fill:none;stroke-width:{};stroke-linejoin:round}}
.plot .faint{{fill:none;stroke-width:{};opacity:{}}}
)",
                       plot_font_size, plot_title_size, plot_line_width, plot_faint_width, plot_faint_alpha);
  for (const PlotInk& ink : series_inks)
    style += fmt::format(".plot .{0}{{stroke:var(--{0})}}.plot .dot.{0}{{fill:var(--{0})}}\n", ink.name);
  return style;
}

}  // namespace weft
