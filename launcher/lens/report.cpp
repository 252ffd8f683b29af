#include "launcher/lens/report.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "core/io/atomic_file.hpp"
#include "launcher/html.hpp"
#include "launcher/lens/readings.hpp"
#include "launcher/page.hpp"
#include "launcher/progress.hpp"

namespace weft {
namespace {

using nlohmann::json;

std::string_view where(const LensRow& row) { return axis_name(row.spread); }

// Fitted exponents of the sequence length, beside the textbook's operations and levels.
std::string fit_table(const LensResult& result) {
  const bool widths = result.spec.widths.size() > 1;
  std::string text = fmt::format("{:<12} {:>12} {:>6}   {:>6} {:>8} {:>6}   {:>6}{}\n", "exponent of n", "work",
                                 "fitted", "span", "executed", "least", "time", widths ? "   work in d" : "");
  const auto work = [](const LensRow& row) { return row.work(); };
  const auto span = [](const LensRow& row) { return row.span(); };
  const auto least_span = [](const LensRow& row) { return row.span_min(); };
  const auto milliseconds = [](const LensRow& row) { return row.milliseconds(); };
  for (const std::string& model : result.spec.models) {
    const auto fit = [&](auto value) { return fitted_exponent(over_length(result, model, value)); };
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

std::string rank_table(const LensResult& result) {
  std::string text = fmt::format("{:<12} {:>7} {:>6} {:>5} {:>5} {:>5} {:>10} {:>11} {:>8} {:>9} {:>11}\n",
                                 "over ranks", "tokens", "width", "batch", "axis", "ranks", "forward ms", "backward ms",
                                 "speed-up", "predicted", "bytes/token");
  for (const LensRow& row : result.rows) {
    if (row.spread.ranks == 1) continue;
    text += fmt::format("{:<12} {:>7} {:>6} {:>5} {:>5} {:>5} ", row.model, row.seq, row.d_model, row.batch, where(row),
                        row.spread.ranks);
    if (row.misfit.empty())
      text += fmt::format("{:>10.3f} {:>11.3f} {:>8.2f} {:>9.2f} {:>11.4g}\n", row.forward_ms, row.backward_ms,
                          row.speedup, row.predicted_speedup,
                          static_cast<double>(row.comm_bytes()) / static_cast<double>(row.seq * row.batch));
    else
      text += "  " + row.misfit + "\n";
  }
  return text;
}

std::string csv(const LensResult& result) {
  std::string text =
      "model,seq,d_model,batch,ranks,axis,work,span,span_min,parallelism,forward_ms,backward_ms,activation_bytes,comm_"
      "bytes,speedup,predicted_speedup\n";
  for (const LensRow& row : result.rows) {
    text += fmt::format("{},{},{},{},{},{}", row.model, row.seq, row.d_model, row.batch, row.spread.ranks, where(row));
    if (row.misfit.empty())
      text += fmt::format(",{},{},{},{},{},{},{},{},{},{}\n", row.work(), row.span(), row.span_min(), row.parallelism(),
                          row.forward_ms, row.backward_ms, row.activation_bytes, row.comm_bytes(), row.speedup,
                          row.predicted_speedup);
    else
      text += ",,,,,,,,,,\n";
  }
  return text;
}

json traffic_json(const LensRow& row) {
  json list = json::array();
  for (const Traffic& one : row.traffic)
    list.push_back({{"group", one.group},
                    {"operation", one.operation},
                    {"pass", one.backward ? "backward" : "forward"},
                    {"bytes", one.bytes}});
  return list;
}

json row_json(const LensResult& result, const LensRow& row) {
  json object{{"model", row.model},
              {"seq", row.seq},
              {"d_model", row.d_model},
              {"batch", row.batch},
              {"ranks", row.spread.ranks},
              {"axis", where(row)},
              {"dtype", name_of(result.spec.compute)},
              {"device", result.device}};
  if (!row.misfit.empty()) {
    for (const char* field : {"work", "span", "span_min", "parallelism", "forward_ms", "backward_ms",
                              "activation_bytes", "comm_bytes", "speedup", "predicted_speedup"})
      object[field] = nullptr;
    object["misfit"] = row.misfit;
    return object;
  }
  const auto pass = [](const PassCost& cost) {
    return json{{"work", cost.work}, {"span", cost.span}, {"span_min", cost.span_min}};
  };
  object.update({{"work", row.work()},
                 {"span", row.span()},
                 {"span_min", row.span_min()},
                 {"parallelism", row.parallelism()},
                 {"forward", pass(row.forward)},
                 {"backward", pass(row.backward)},
                 {"forward_ms", row.forward_ms},
                 {"backward_ms", row.backward_ms},
                 {"activation_bytes", row.activation_bytes},
                 {"comm_bytes", row.comm_bytes()},
                 {"comm", traffic_json(row)},
                 {"speedup", row.speedup},
                 {"predicted_speedup", row.predicted_speedup}});
  return object;
}

}  // namespace

std::string format_lens(const LensResult& result) {
  std::string text =
      fmt::format("{:<12} {:>7} {:>6} {:>5} {:>9} {:>8} {:>8} {:>11} {:>10} {:>11} {:>10}\n", "one rank", "tokens",
                  "width", "batch", "work", "span", "least", "work/span", "forward ms", "backward ms", "held");
  for (const LensRow& row : result.rows)
    if (row.spread.ranks == 1)
      text += fmt::format("{:<12} {:>7} {:>6} {:>5} {:>9} {:>8} {:>8} {:>11} {:>10.3f} {:>11.3f} {:>6.1f} MiB\n",
                          row.model, row.seq, row.d_model, row.batch, format_count(row.work()),
                          format_count(row.span()), format_count(row.span_min()), format_count(row.parallelism()),
                          row.forward_ms, row.backward_ms, static_cast<double>(row.activation_bytes) / 0x1p20);
  if (result.spec.lengths.size() > 1) text += "\n" + fit_table(result);
  if (!result.spec.ranks.empty() && !result.spec.axes.empty()) text += "\n" + rank_table(result);
  return text;
}

json lens_json(const LensResult& result) {
  json rows = json::array();
  for (const LensRow& row : result.rows) rows.push_back(row_json(result, row));
  return rows;
}

std::filesystem::path write_lens(const LensResult& result, const std::filesystem::path& folder) {
  std::filesystem::create_directories(folder);
  write_file_atomic(folder / "lens.json", lens_json(result).dump(1) + "\n");
  write_file_atomic(folder / "lens.csv", csv(result));
  std::string figures;
  for (const Reading& reading : readings(result)) {
    write_file_atomic(folder / (reading.file + ".svg"), plot_file(reading.plot));
    if (const std::optional<std::string> png = plot_png(reading.plot))
      write_file_atomic(folder / (reading.file + ".png"), *png);
    figures += fmt::format("<figure>{}<figcaption>{}</figcaption></figure>\n", plot_svg(reading.plot),
                           escape_html(reading.text));
  }
  const std::string body = fmt::format(
      "<h1>Why attention spreads and a recurrence waits</h1>\n<p class=\"where\">Mixers alone, {} wide, {}, on {}. "
      "Forward and backward together. A level is what must wait for the one before it; a contraction, a softmax or a "
      "reduction is one.</p>\n"
      "<div class=\"plots\">\n{}</div>\n<h2>Figures</h2>\n<pre>{}</pre>\n",
      result.spec.widths.front(), name_of(result.spec.compute), escape_html(result.device), figures,
      escape_html(format_lens(result)));
  const std::filesystem::path path = folder / "lens.html";
  write_file_atomic(path, html_page("Weft lens", body));
  return path;
}

}  // namespace weft
