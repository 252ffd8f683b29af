#include "launcher/lens_report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <nlohmann/json.hpp>
#include <set>

#include "core/io/atomic_file.hpp"
#include "launcher/html.hpp"
#include "launcher/page.hpp"
#include "launcher/progress.hpp"

namespace weft {
namespace {

using nlohmann::json;

/// Operations and dependent levels of n tokens d wide (Vaswani et al. 2017, table 1, and Martin & Cundy 2018 for scans).
struct Textbook {
  std::string_view model, work, depth;
};
constexpr std::array textbook = {
    Textbook{"attention", "n d² + n² d", "1"},
    Textbook{"elman", "n d²", "n"},
    Textbook{"gru", "n d²", "n"},
    Textbook{"lstm", "n d²", "n"},
    Textbook{"mean", "n d²", "1"},
    Textbook{"mingru", "n d²", "log n"},
    Textbook{"minlstm", "n d²", "log n"},
    Textbook{"qrnn", "n d²", "log n"},
    Textbook{"qrnn-f", "n d²", "log n"},
    Textbook{"sha-rnn", "n d² + n² d", "n"},
    Textbook{"sru", "n d²", "n"},
    Textbook{"sru-affine", "n d²", "log n"},
    Textbook{"srupp", "n d² + n² d", "n"},
};

Textbook textbook_of(const std::string& model) {
  const auto found = std::ranges::find(textbook, std::string_view(model), &Textbook::model);
  return found == textbook.end() ? Textbook{model, "-", "-"} : *found;
}

template <class Value>
std::vector<PlotPoint> over_length(const LensResult& result, const std::string& model, std::int64_t width,
                                   Value value) {
  std::vector<PlotPoint> points;
  for (const LensRow& row : result.rows)
    if (row.model == model && row.d_model == width) points.push_back({static_cast<double>(row.seq), value(row)});
  return points;
}

template <class Value>
std::vector<PlotPoint> over_width(const LensResult& result, const std::string& model, Value value) {
  std::vector<PlotPoint> points;
  for (const LensRow& row : result.rows)
    if (row.model == model && row.seq == result.spec.lengths.back())
      points.push_back({static_cast<double>(row.d_model), value(row)});
  return points;
}

double work(const LensRow& row) { return row.work(); }
double span(const LensRow& row) { return row.span(); }
double least_span(const LensRow& row) { return row.span_min(); }
double milliseconds(const LensRow& row) { return row.forward_ms + row.backward_ms; }

const LensRow& longest(const LensResult& result, const std::string& model) {
  const auto found = std::ranges::find_if(result.rows, [&](const LensRow& row) {
    return row.model == model && row.seq == result.spec.lengths.back() && row.d_model == result.spec.widths.front();
  });
  return *found;
}

/// A plot with two lines that say what it shows, drawn from its figures.
struct Reading {
  std::string file;
  Plot plot;
  std::string text;
};

template <class Value>
Reading reading_over_length(const LensResult& result, std::string file, std::string title, std::string unit,
                            Value value) {
  Reading reading{std::move(file), {}, {}};
  reading.plot = {.title = std::move(title),
                  .x_label = "tokens of a sequence",
                  .y_label = std::move(unit),
                  .x_scale = AxisScale::log,
                  .y_scale = AxisScale::log,
                  .series = {}};
  int color = 0;
  for (const std::string& model : result.spec.models)
    reading.plot.series.push_back(
        {model, over_length(result, model, result.spec.widths.front(), value), SeriesStyle::marked, color++});
  return reading;
}

/// "attention 1.98, lstm 1.00": the exponents in sequence length.
template <class Value>
std::string exponents(const LensResult& result, Value value) {
  std::string text;
  for (const std::string& model : result.spec.models)
    text += fmt::format("{}{} {:.2f}", text.empty() ? "" : ", ", model,
                        fitted_exponent(over_length(result, model, result.spec.widths.front(), value)));
  return text;
}

/// The models with the least and the greatest value at the greatest length.
template <class Value>
std::pair<std::string, std::string> extremes(const LensResult& result, Value value) {
  const auto of = [&](const std::string& model) { return value(longest(result, model)); };
  const auto [least, greatest] = std::ranges::minmax_element(result.spec.models, {}, of);
  return {*least, *greatest};
}

std::vector<Reading> readings(const LensResult& result) {
  const std::int64_t n = result.spec.lengths.back();
  std::vector<Reading> all;

  Reading levels = reading_over_length(result, "span", "Dependent levels", "levels", span);
  {
    const auto [least, greatest] = extremes(result, span);
    levels.text = fmt::format(
        "Grows with the length to the power of: {}. At {} tokens {} waits through {:.0f} levels one after another, {} "
        "through "
        "{:.0f}.",
        exponents(result, span), n, greatest, longest(result, greatest).span(), least, longest(result, least).span());
  }
  all.push_back(std::move(levels));

  Reading fewest = reading_over_length(result, "span_min", "Fewest levels possible", "levels", least_span);
  {
    const auto [least, greatest] = extremes(result, least_span);
    fewest.text = fmt::format(
        "Grows with the length to the power of: {}. A scan over {} tokens needs no more than its logarithm; what is "
        "not "
        "affine in its state, as {}, still waits through {:.0f} levels.",
        exponents(result, least_span), n, greatest, longest(result, greatest).span_min());
  }
  if (std::ranges::any_of(result.rows, [](const LensRow& row) { return row.span_min() < row.span(); }))
    all.push_back(std::move(fewest));

  Reading operations = reading_over_length(result, "work", "Operations", "FLOPs", work);
  {
    const auto [least, greatest] = extremes(result, work);
    operations.text = fmt::format(
        "Grows with the length to the power of: {}. At {} tokens {} does {:.1f} times the operations of {}.",
        exponents(result, work), n, greatest, longest(result, greatest).work() / longest(result, least).work(), least);
  }
  all.push_back(std::move(operations));

  Reading time = reading_over_length(result, "time", "Measured time", "milliseconds", milliseconds);
  {
    const auto [least, greatest] = extremes(result, milliseconds);
    time.text =
        fmt::format("Grows with the length to the power of: {}. At {} tokens {} takes {:.3g} ms here, {} {:.3g} ms.",
                    exponents(result, milliseconds), n, greatest, milliseconds(longest(result, greatest)), least,
                    milliseconds(longest(result, least)));
  }
  all.push_back(std::move(time));

  const auto held = [](const LensRow& row) { return static_cast<double>(row.activation_bytes); };
  Reading memory = reading_over_length(result, "memory", "Activations held", "bytes", held);
  {
    const auto [least, greatest] = extremes(result, held);
    memory.text =
        fmt::format("Grows with the length to the power of: {}. At {} tokens {} holds {:.1f} MiB, {} {:.1f} MiB.",
                    exponents(result, held), n, greatest, held(longest(result, greatest)) / 0x1p20, least,
                    held(longest(result, least)) / 0x1p20);
  }
  all.push_back(std::move(memory));

  Reading reach{"gradient", {}, {}};
  reach.plot = {.title = "Gradient reach",
                .x_label = "tokens back",
                .y_label = "norm, distance 0 is 1",
                .x_scale = AxisScale::log,
                .y_scale = AxisScale::log,
                .series = {}};
  int color = 0;
  for (const GradientReach& one : result.reaches) {
    Series line{one.model, one.norms, SeriesStyle::line, color++};
    // Far below what f32 adds to anything there is nothing to see.
    std::erase_if(line.points, [](const PlotPoint& point) { return point.y < 1e-9; });
    reach.plot.series.push_back(std::move(line));
    const auto gone = std::ranges::find_if(one.norms, [](const PlotPoint& point) { return point.y < 1e-6; });
    reach.text += fmt::format("{}{}", reach.text.empty() ? "" : "; ", one.model);
    reach.text += gone == one.norms.end()
                      ? fmt::format(" still has {:.1e} of it after {} tokens", one.norms.back().y, one.norms.size() - 1)
                      : fmt::format(" has less than a millionth after {:.0f}", gone->x);
  }
  reach.text = fmt::format("Of the last token's output, at the initial weights: {}.", reach.text);
  all.push_back(std::move(reach));
  return all;
}

// Fitted exponents of the sequence length, beside the textbook's operations and levels.
std::string fit_table(const LensResult& result) {
  const bool widths = result.spec.widths.size() > 1;
  std::string text = fmt::format("{:<12} {:>12} {:>6}   {:>6} {:>8} {:>6}   {:>6}{}\n", "exponent of n", "work",
                                 "fitted", "span", "executed", "least", "time", widths ? "   work in d" : "");
  for (const std::string& model : result.spec.models) {
    const std::int64_t width = result.spec.widths.front();
    const auto fit = [&](auto value) { return fitted_exponent(over_length(result, model, width, value)); };
    const Textbook book = textbook_of(model);
    // Printed widths count bytes, and the squares take two.
    const auto pad = [](std::string_view text_, std::size_t columns) {
      const auto squares = static_cast<std::size_t>(std::ranges::count(text_, '\xc2'));
      return std::string(columns + squares > text_.size() ? columns + squares - text_.size() : 0, ' ') +
             std::string(text_);
    };
    text += fmt::format("{:<12} {} {:>6.2f}   {} {:>8.2f} {:>6.2f}   {:>6.2f}{}\n", model, pad(book.work, 13),
                        fit(work), pad(book.depth, 6), fit(span), fit(least_span), fit(milliseconds),
                        widths ? fmt::format("   {:>9.2f}", fitted_exponent(over_width(result, model, work))) : "");
  }
  return text;
}

std::string csv(const LensResult& result) {
  std::string text =
      "model,seq,d_model,batch,ranks,axis,work,span,span_min,parallelism,forward_ms,backward_ms,activation_bytes,comm_"
      "bytes\n";
  for (const LensRow& row : result.rows)
    text += fmt::format("{},{},{},{},1,none,{},{},{},{},{},{},{},0\n", row.model, row.seq, row.d_model, row.batch,
                        row.work(), row.span(), row.span_min(), row.parallelism(), row.forward_ms, row.backward_ms,
                        row.activation_bytes);
  return text;
}

}  // namespace

std::string format_lens(const LensResult& result) {
  std::string text =
      fmt::format("{:<12} {:>7} {:>6} {:>9} {:>8} {:>8} {:>11} {:>10} {:>11} {:>10}\n", "mixer", "tokens", "width",
                  "work", "span", "least", "work/span", "forward ms", "backward ms", "held");
  for (const LensRow& row : result.rows)
    text += fmt::format("{:<12} {:>7} {:>6} {:>9} {:>8} {:>8} {:>11} {:>10.3f} {:>11.3f} {:>6.1f} MiB\n", row.model,
                        row.seq, row.d_model, format_count(row.work()), format_count(row.span()),
                        format_count(row.span_min()), format_count(row.parallelism()), row.forward_ms, row.backward_ms,
                        static_cast<double>(row.activation_bytes) / 0x1p20);
  if (result.spec.lengths.size() > 1) text += "\n" + fit_table(result);
  return text;
}

json lens_json(const LensResult& result) {
  json rows = json::array();
  const auto pass = [](const PassCost& cost) {
    return json{{"work", cost.work}, {"span", cost.span}, {"span_min", cost.span_min}};
  };
  for (const LensRow& row : result.rows)
    rows.push_back({{"model", row.model},
                    {"seq", row.seq},
                    {"d_model", row.d_model},
                    {"batch", row.batch},
                    {"ranks", 1},
                    {"axis", "none"},
                    {"work", row.work()},
                    {"span", row.span()},
                    {"span_min", row.span_min()},
                    {"parallelism", row.parallelism()},
                    {"forward", pass(row.forward)},
                    {"backward", pass(row.backward)},
                    {"forward_ms", row.forward_ms},
                    {"backward_ms", row.backward_ms},
                    {"activation_bytes", row.activation_bytes},
                    {"comm_bytes", 0},
                    {"dtype", name_of(result.spec.compute)},
                    {"device", result.device}});
  return rows;
}

std::filesystem::path write_lens(const LensResult& result, const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  write_file_atomic(folder / "lens.json", lens_json(result).dump(1) + "\n");
  write_file_atomic(folder / "lens.csv", csv(result));
  std::string figures;
  for (const Reading& reading : readings(result)) {
    write_file_atomic(folder / (reading.file + ".svg"), plot_file(reading.plot));
    figures += fmt::format("<figure>{}<figcaption>{}</figcaption></figure>\n", plot_svg(reading.plot),
                           escape_html(reading.text));
  }
  const std::string body = fmt::format(
      "<h1>Why attention spreads and a recurrence waits</h1>\n<p class=\"where\">Mixers alone, batch {}, {} wide, {}, "
      "on {}. "
      "Forward and backward together. A level is what must wait for the one before it; a contraction, a softmax or a "
      "reduction is one.</p>\n"
      "<div class=\"plots\">\n{}</div>\n<h2>Figures</h2>\n<pre>{}</pre>\n",
      result.spec.batch, result.spec.widths.front(), name_of(result.spec.compute), escape_html(result.device), figures,
      escape_html(format_lens(result)));
  const std::filesystem::path path = folder / "lens.html";
  write_file_atomic(path, html_page("Weft lens", body));
  return path;
}

}  // namespace weft
