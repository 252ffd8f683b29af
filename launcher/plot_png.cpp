// Plots as PNG by cairo, which is opened when the first is drawn: no header and no package is needed to build, and a machine
// without it has its plots as SVG.
#include <dlfcn.h>

#include <array>
#include <cmath>
#include <numbers>
#include <utility>

#include "launcher/plot_canvas.hpp"

namespace weft {
namespace {

struct Surface;  // cairo_surface_t
struct Pen;      // cairo_t
struct TextExtents {
  double x_bearing, y_bearing, width, height, x_advance, y_advance;
};
using WriteBytes = int (*)(void* closure, const unsigned char* data, unsigned length);

constexpr int format_rgb24 = 1, line_join_round = 1, slant_normal = 0, weight_normal = 0, weight_bold = 1;
constexpr int success = 0;

/// What is called of libcairo.so.2 (since cairo 1.0).
class Cairo {
 public:
  Cairo() : library_(dlopen("libcairo.so.2", RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE)) {
    if (!library_) return;
    complete_ = load("cairo_image_surface_create", make_surface) && load("cairo_surface_destroy", drop_surface) &&
                load("cairo_surface_write_to_png_stream", write_png) && load("cairo_create", make_pen) &&
                load("cairo_destroy", drop_pen) && load("cairo_status", status) && load("cairo_scale", scale) &&
                load("cairo_set_source_rgba", set_color) && load("cairo_paint", paint) &&
                load("cairo_set_line_width", set_line_width) && load("cairo_set_line_join", set_line_join) &&
                load("cairo_move_to", move_to) && load("cairo_line_to", line_to) && load("cairo_stroke", stroke) &&
                load("cairo_arc", arc) && load("cairo_fill", fill) && load("cairo_save", save) &&
                load("cairo_restore", restore) && load("cairo_translate", translate) && load("cairo_rotate", rotate) &&
                load("cairo_select_font_face", select_font) && load("cairo_set_font_size", set_font_size) &&
                load("cairo_text_extents", text_extents) && load("cairo_show_text", show_text);
  }
  ~Cairo() {
    if (library_) dlclose(library_);
  }
  Cairo(const Cairo&) = delete;
  Cairo& operator=(const Cairo&) = delete;
  bool there() const { return complete_; }

  Surface* (*make_surface)(int format, int width, int height) = nullptr;
  void (*drop_surface)(Surface*) = nullptr;
  int (*write_png)(Surface*, WriteBytes, void* closure) = nullptr;
  Pen* (*make_pen)(Surface*) = nullptr;
  void (*drop_pen)(Pen*) = nullptr;
  int (*status)(Pen*) = nullptr;
  void (*scale)(Pen*, double, double) = nullptr;
  void (*set_color)(Pen*, double, double, double, double) = nullptr;
  void (*paint)(Pen*) = nullptr;
  void (*set_line_width)(Pen*, double) = nullptr;
  void (*set_line_join)(Pen*, int) = nullptr;
  void (*move_to)(Pen*, double, double) = nullptr;
  void (*line_to)(Pen*, double, double) = nullptr;
  void (*stroke)(Pen*) = nullptr;
  void (*arc)(Pen*, double, double, double, double, double) = nullptr;
  void (*fill)(Pen*) = nullptr;
  void (*save)(Pen*) = nullptr;
  void (*restore)(Pen*) = nullptr;
  void (*translate)(Pen*, double, double) = nullptr;
  void (*rotate)(Pen*, double) = nullptr;
  void (*select_font)(Pen*, const char*, int slant, int weight) = nullptr;
  void (*set_font_size)(Pen*, double) = nullptr;
  void (*text_extents)(Pen*, const char*, TextExtents*) = nullptr;
  void (*show_text)(Pen*, const char*) = nullptr;

 private:
  template <class Function>
  bool load(const char* name, Function& function) {
    function = reinterpret_cast<Function>(dlsym(library_, name));
    return function != nullptr;
  }

  void* library_;
  bool complete_ = false;
};

class PngCanvas final : public PlotCanvas {
 public:
  PngCanvas(const Cairo& cairo, int width, int height, double scale)
      : cairo_(cairo), surface_(cairo.make_surface(format_rgb24, static_cast<int>(std::lround(width * scale)),
                                                   static_cast<int>(std::lround(height * scale)))),
        pen_(cairo.make_pen(surface_)) {
    cairo_.scale(pen_, scale, scale);
    cairo_.set_line_join(pen_, line_join_round);
    use(plot_inks[0]);
    cairo_.paint(pen_);
  }
  ~PngCanvas() override {
    cairo_.drop_pen(pen_);
    cairo_.drop_surface(surface_);
  }
  PngCanvas(const PngCanvas&) = delete;
  PngCanvas& operator=(const PngCanvas&) = delete;

  void rule(RuleKind kind, PlotPoint from, PlotPoint to) override {
    use(kind == RuleKind::grid ? plot_inks[3] : plot_inks[2]);
    cairo_.set_line_width(pen_, 1);
    cairo_.move_to(pen_, from.x, from.y);
    cairo_.line_to(pen_, to.x, to.y);
    cairo_.stroke(pen_);
  }
  void line(const std::vector<PlotPoint>& points, int color, bool faint) override {
    use(series_ink(color), faint ? plot_faint_alpha : 1);
    cairo_.set_line_width(pen_, faint ? plot_faint_width : plot_line_width);
    cairo_.move_to(pen_, points.front().x, points.front().y);
    for (const PlotPoint& point : points) cairo_.line_to(pen_, point.x, point.y);
    cairo_.stroke(pen_);
  }
  void dot(PlotPoint at, int color) override {
    use(series_ink(color));
    cairo_.arc(pen_, at.x, at.y, plot_dot_radius, 0, 2 * std::numbers::pi);
    cairo_.fill(pen_);
  }
  void text(PlotPoint at, std::string_view words, TextRole role, TextAnchor anchor) override {
    const std::string terminated(words);
    TextExtents extents{};
    choose_font(role);
    cairo_.text_extents(pen_, terminated.c_str(), &extents);
    const double before = anchor == TextAnchor::start ? 0 : anchor == TextAnchor::middle ? 0.5 : 1;
    cairo_.move_to(pen_, at.x - before * extents.x_advance, at.y);
    cairo_.show_text(pen_, terminated.c_str());
  }
  void upright_text(PlotPoint at, std::string_view words, TextRole role) override {
    cairo_.save(pen_);
    cairo_.translate(pen_, at.x, at.y);
    cairo_.rotate(pen_, -std::numbers::pi / 2);
    text({0, 0}, words, role, TextAnchor::middle);
    cairo_.restore(pen_);
  }

  std::optional<std::string> bytes() const {
    std::string png;
    const WriteBytes append = [](void* closure, const unsigned char* data, unsigned length) {
      static_cast<std::string*>(closure)->append(reinterpret_cast<const char*>(data), length);
      return success;
    };
    if (cairo_.status(pen_) != success || cairo_.write_png(surface_, append, &png) != success) return std::nullopt;
    return png;
  }

 private:
  static const PlotInk& series_ink(int color) { return series_inks[static_cast<std::size_t>(color)]; }
  void use(const PlotInk& ink, double alpha = 1) {
    const auto part = [&](int shift) { return (ink.light >> shift & 0xff) / 255.0; };
    cairo_.set_color(pen_, part(16), part(8), part(0), alpha);
  }
  void choose_font(TextRole role) {
    const bool title = role == TextRole::title;
    use(title ? plot_inks[1] : plot_inks[2]);
    cairo_.select_font(pen_, "sans-serif", slant_normal, title ? weight_bold : weight_normal);
    cairo_.set_font_size(pen_, title ? plot_title_size : plot_font_size);
  }

  const Cairo& cairo_;
  Surface* surface_;
  Pen* pen_;
};

}  // namespace

std::optional<std::string> plot_png(const Plot& plot, double scale) {
  const Cairo cairo;
  if (!cairo.there()) return std::nullopt;
  PngCanvas canvas(cairo, plot.width, plot.height, scale);
  draw_plot(plot, canvas);
  return canvas.bytes();
}

}  // namespace weft
