#include "launcher/lens/readings.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>

namespace weft {
namespace {

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
    Textbook{"transformer-xl", "n d² + n² d", "1"},
};

/// "a, b and c".
std::string listed(const std::vector<std::string>& words) {
  std::string text;
  for (std::size_t i = 0; i < words.size(); ++i)
    text += (i == 0 ? "" : i + 1 == words.size() ? " and " : ", ") + words[i];
  return text;
}

std::string sequences(std::int64_t count) { return fmt::format("{} sequence{}", count, count == 1 ? "" : "s"); }

const LensRow& longest(const LensResult& result, const std::string& model) {
  const LensSpec& spec = result.spec;
  return *one_rank_row(result, model, spec.lengths.back(), spec.widths.front(), spec.batches.front());
}

/// One value of every model over the length.
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
    reading.plot.series.push_back({model, over_length(result, model, value), SeriesStyle::marked, color++});
  return reading;
}

/// "Grows with the length to the power of: attention 1.98, lstm 1.00. "; nothing for one length.
template <class Value>
std::string growth(const LensResult& result, Value value) {
  if (result.spec.lengths.size() < 2) return {};
  std::vector<std::string> words;
  for (const std::string& model : result.spec.models)
    words.push_back(fmt::format("{} {:.2f}", model, fitted_exponent(over_length(result, model, value))));
  return fmt::format("Grows with the length to the power of: {}. ", fmt::join(words, ", "));
}

/// The models with the least and the greatest value at the greatest length.
template <class Value>
std::pair<std::string, std::string> extremes(const LensResult& result, Value value) {
  const auto of = [&](const std::string& model) { return value(longest(result, model)); };
  const auto [least, greatest] = std::ranges::minmax_element(result.spec.models, {}, of);
  return {*least, *greatest};
}

Reading levels(const LensResult& result) {
  const auto span = [](const LensRow& row) { return row.span(); };
  Reading reading = reading_over_length(result, "span", "Dependent levels", "levels", span);
  const auto [least, greatest] = extremes(result, span);
  reading.text = fmt::format("{}At {} tokens {} waits through {:.0f} levels one after another, {} through {:.0f}.",
                             growth(result, span), result.spec.lengths.back(), greatest,
                             longest(result, greatest).span(), least, longest(result, least).span());
  return reading;
}

Reading least_levels(const LensResult& result) {
  const auto least_span = [](const LensRow& row) { return row.span_min(); };
  Reading reading = reading_over_length(result, "span_min", "Fewest levels possible", "levels", least_span);
  std::vector<std::string> fewer, whole;
  for (const std::string& model : result.spec.models) {
    const LensRow& row = longest(result, model);
    // A recurrence's backward pass is affine in the gradient that travels back: half of its levels can always go.
    if (row.span_min() < row.span() / 4)
      fewer.push_back(fmt::format("{} could do with {:.0f} of its {:.0f}", model, row.span_min(), row.span()));
    else
      whole.push_back(fmt::format("{} needs {:.0f} of {:.0f}", model, row.span_min(), row.span()));
  }
  fewer.insert(fewer.end(), whole.begin(), whole.end());
  reading.text =
      fmt::format("{}At {} tokens {}.", growth(result, least_span), result.spec.lengths.back(), fmt::join(fewer, ", "));
  return reading;
}

Reading operations(const LensResult& result) {
  const auto work = [](const LensRow& row) { return row.work(); };
  Reading reading = reading_over_length(result, "work", "Operations", "FLOPs", work);
  const auto [least, greatest] = extremes(result, work);
  reading.text = fmt::format("{}At {} tokens {} does {:.1f} times the operations of {}.", growth(result, work),
                             result.spec.lengths.back(), greatest,
                             longest(result, greatest).work() / longest(result, least).work(), least);
  return reading;
}

Reading time(const LensResult& result) {
  const auto milliseconds = [](const LensRow& row) { return row.milliseconds(); };
  Reading reading =
      reading_over_length(result, "time", fmt::format("Measured time, {}", sequences(result.spec.batches.front())),
                          "milliseconds", milliseconds);
  const auto [least, greatest] = extremes(result, milliseconds);
  reading.text = fmt::format("{}At {} tokens {} takes {:.3g} ms here, {} {:.3g} ms.", growth(result, milliseconds),
                             result.spec.lengths.back(), greatest, milliseconds(longest(result, greatest)), least,
                             milliseconds(longest(result, least)));
  return reading;
}

Reading memory(const LensResult& result) {
  const auto held = [](const LensRow& row) { return static_cast<double>(row.activation_bytes); };
  Reading reading = reading_over_length(result, "memory", "Activations held", "bytes", held);
  const auto [least, greatest] = extremes(result, held);
  reading.text = fmt::format("{}At {} tokens {} holds {:.1f} MiB, {} {:.1f} MiB.", growth(result, held),
                             result.spec.lengths.back(), greatest, held(longest(result, greatest)) / 0x1p20, least,
                             held(longest(result, least)) / 0x1p20);
  return reading;
}

/// How much faster a token goes through in a full batch than in the smallest one.
Reading batch_gain(const LensResult& result) {
  const LensSpec& spec = result.spec;
  const std::int64_t one = spec.batches.front(), full = spec.batches.back();
  const auto gain = [&](const LensRow& row) {
    const LensRow* whole = one_rank_row(result, row.model, row.seq, row.d_model, full);
    return row.milliseconds() / static_cast<double>(one) / (whole->milliseconds() / static_cast<double>(full));
  };
  Reading reading =
      reading_over_length(result, "batch", fmt::format("What {} at a time gain over {}", sequences(full), one),
                          "times the tokens a second", gain);
  reading.plot.y_scale = AxisScale::linear_from_zero;
  const auto [least, greatest] = extremes(result, gain);
  reading.text = fmt::format(
      "At {} tokens {} does {:.2f} times the tokens a second with {} at a time, {} {:.2f} times. At {} tokens these "
      "are "
      "{:.2f} and {:.2f} times.",
      spec.lengths.back(), greatest, gain(longest(result, greatest)), sequences(full), least,
      gain(longest(result, least)), spec.lengths.front(), over_length(result, greatest, gain).front().y,
      over_length(result, least, gain).front().y);
  return reading;
}

/// "attention 1.85 times as fast with 2 (1.92 predicted)" of each model that goes over the axis.
std::vector<std::string> gains(const LensResult& result, const std::vector<const LensRow*>& rows, int ranks) {
  std::vector<std::string> words;
  for (const std::string& model : result.spec.models)
    for (const LensRow* row : rows)
      if (row->model == model && row->spread.ranks == ranks && row->misfit.empty())
        words.push_back(fmt::format("{} {:.2f} times ({:.2f} predicted)", model, row->speedup, row->predicted_speedup));
  return words;
}

std::string_view shared_out(Axis axis) {
  switch (axis) {
    case Axis::sp: return "tokens";
    case Axis::tp: return "channels";
    case Axis::dp: return "sequences";
    case Axis::pp: break;
  }
  return "layers";
}

/// Rows of an axis at one batch, the smallest width and the greatest length.
std::vector<const LensRow*> spread_rows(const LensResult& result, Axis axis, std::int64_t batch) {
  std::vector<const LensRow*> rows;
  for (const LensRow& row : result.rows)
    if (row.spread.axis == axis && row.batch == batch && row.d_model == result.spec.widths.front() &&
        row.seq == result.spec.lengths.back())
      rows.push_back(&row);
  return rows;
}

Reading speedup(const LensResult& result, Axis axis, std::int64_t batch, const std::vector<const LensRow*>& rows) {
  const std::int64_t seq = result.spec.lengths.back();
  Reading reading{fmt::format("speedup-{}-{}", name_of(axis), batch), {}, {}};
  reading.plot = {.title = fmt::format("Speed-up over {} ranks, {} of {} tokens", name_of(axis), sequences(batch), seq),
                  .x_label = "ranks; dots are measured, lines predicted",
                  .y_label = "times one rank",
                  .x_scale = AxisScale::counts,
                  .y_scale = AxisScale::linear_from_zero,
                  .series = {}};
  int color = 0;
  std::vector<std::string> whole;
  for (const std::string& model : result.spec.models) {
    std::vector<PlotPoint> measured{{1, 1}}, predicted{{1, 1}};
    bool goes = false;
    for (const LensRow* row : rows) {
      if (row->model != model || !row->misfit.empty()) continue;
      measured.push_back({static_cast<double>(row->spread.ranks), row->speedup});
      predicted.push_back({static_cast<double>(row->spread.ranks), row->predicted_speedup});
      goes = true;
    }
    if (goes) {
      reading.plot.series.push_back({"", predicted, SeriesStyle::line, color});
      reading.plot.series.push_back({model, measured, SeriesStyle::dots, color});
    } else {
      whole.push_back(model);
    }
    ++color;
  }
  const int most = result.spec.ranks.back();
  const std::vector<std::string> words = gains(result, rows, most);
  reading.text = words.empty() ? fmt::format("None of them spreads its {} over {} ranks.", shared_out(axis), most)
                               : fmt::format("With the {} over {} ranks, as fast as one rank: {}.", shared_out(axis),
                                             most, fmt::join(words, ", "));
  if (!whole.empty())
    reading.text += fmt::format(" {} {} not go over {} here: more ranks gain it nothing.", listed(whole),
                                whole.size() == 1 ? "does" : "do", name_of(axis));
  return reading;
}

/// What travels along the axis itself: gradient sums are a matter of the parameters and stand in the table.
Reading traffic(const LensResult& result, Axis axis, int ranks) {
  const std::string group = axis == Axis::dp ? "dp+sp" : std::string(name_of(axis));
  Reading reading{fmt::format("bytes-{}", name_of(axis)), {}, {}};
  reading.plot = {.title = fmt::format("Bytes a token over {} {} ranks", ranks, name_of(axis)),
                  .x_label = "tokens of a sequence",
                  .y_label = "bytes, both passes",
                  .x_scale = AxisScale::log,
                  .y_scale = AxisScale::log,
                  .series = {}};
  int color = 0;
  std::vector<std::string> words, powers;
  for (const std::string& model : result.spec.models) {
    std::vector<PlotPoint> points;
    for (const LensRow& row : result.rows)
      if (row.model == model && row.spread == Spread{axis, ranks} && row.misfit.empty() &&
          row.batch == result.spec.batches.back() && row.d_model == result.spec.widths.front())
        points.push_back({static_cast<double>(row.seq), row.bytes_per_token(group)});
    if (!points.empty()) {
      reading.plot.series.push_back({model, points, SeriesStyle::marked, color});
      words.push_back(fmt::format("{} {:.4g}", model, points.back().y));
      if (points.size() > 1) powers.push_back(fmt::format("{} {:.2f}", model, fitted_exponent(points)));
    }
    ++color;
  }
  reading.text = fmt::format("Bytes that all ranks send for a token at {} tokens: {}.", result.spec.lengths.back(),
                             fmt::join(words, ", "));
  if (!powers.empty())
    reading.text += fmt::format(" They go with the length to the power of: {}.", fmt::join(powers, ", "));
  return reading;
}

Reading gradient_reach(const LensResult& result) {
  Reading reading{"gradient", {}, {}};
  reading.plot = {.title = "Gradient reach",
                  .x_label = "tokens back",
                  .y_label = "norm, distance 0 is 1",
                  .x_scale = AxisScale::log,
                  .y_scale = AxisScale::log,
                  .series = {}};
  int color = 0;
  std::vector<std::string> words;
  for (const GradientReach& one : result.reaches) {
    Series line{one.model, one.norms, SeriesStyle::line, color++};
    // Far below what f32 adds to anything there is nothing to see.
    std::erase_if(line.points, [](const PlotPoint& point) { return point.y < 1e-9; });
    reading.plot.series.push_back(std::move(line));
    const auto gone = std::ranges::find_if(one.norms, [](const PlotPoint& point) { return point.y < 1e-6; });
    words.push_back(gone == one.norms.end()
                        ? fmt::format("{} still has {:.1e} of it after {} tokens", one.model, one.norms.back().y,
                                      one.norms.size() - 1)
                        : fmt::format("{} has less than a millionth after {:.0f}", one.model, gone->x));
  }
  reading.text = fmt::format("Of the last token's output, at the initial weights: {}.", fmt::join(words, "; "));
  return reading;
}

Reading recall(const LensResult& result) {
  Reading reading{"recall", {}, {}};
  reading.plot = {.title = fmt::format("Recall after {} training steps", result.spec.recall_steps),
                  .x_label = "tokens since it was said",
                  .y_label = "part of answers that are right",
                  .x_scale = AxisScale::log,
                  .y_scale = AxisScale::linear_from_zero,
                  .series = {}};
  int color = 0;
  std::vector<std::string> words;
  for (const RecallCurve& curve : result.recalls) {
    reading.plot.series.push_back({curve.model, curve.accuracy, SeriesStyle::marked, color++});
    if (!curve.accuracy.empty())
      words.push_back(
          fmt::format("{} {:.0f}% ({:.0f}% of all)", curve.model, 100 * curve.accuracy.back().y, 100 * curve.mean));
  }
  reading.text = fmt::format(
      "Each was trained on the same sequences and then asked for values that keys were given before. Of what was said "
      "longest ago it gets right: {}; guessing gets {:.0f}%.",
      fmt::join(words, ", "), 100 * recall_by_chance());
  return reading;
}

}  // namespace

Textbook textbook_of(std::string_view model) {
  const auto found = std::ranges::find(textbook, model, &Textbook::model);
  return found == textbook.end() ? Textbook{model, "-", "-"} : *found;
}

const LensRow* one_rank_row(const LensResult& result, std::string_view model, std::int64_t seq, std::int64_t width,
                            std::int64_t batch) {
  const auto found = std::ranges::find_if(result.rows, [&](const LensRow& row) {
    return row.model == model && row.seq == seq && row.d_model == width && row.batch == batch && row.spread.ranks == 1;
  });
  return found == result.rows.end() ? nullptr : &*found;
}

std::vector<Reading> readings(const LensResult& result) {
  const LensSpec& spec = result.spec;
  std::vector<Reading> all{levels(result)};
  if (std::ranges::any_of(result.rows, [](const LensRow& row) { return row.span_min() < row.span(); }))
    all.push_back(least_levels(result));
  all.push_back(operations(result));
  all.push_back(time(result));
  if (spec.batches.size() > 1) all.push_back(batch_gain(result));
  for (const Axis axis : spec.axes)
    for (const std::int64_t batch : spec.batches) {
      if (spec.ranks.empty()) continue;
      const std::vector<const LensRow*> rows = spread_rows(result, axis, batch);
      if (std::ranges::any_of(rows, [](const LensRow* row) { return row->misfit.empty(); }))
        all.push_back(speedup(result, axis, batch, rows));
    }
  for (const Axis axis : spec.axes)
    if (!spec.ranks.empty()) {
      Reading one = traffic(result, axis, spec.ranks.back());
      if (!one.plot.series.empty()) all.push_back(std::move(one));
    }
  all.push_back(memory(result));
  all.push_back(gradient_reach(result));
  if (!result.recalls.empty()) all.push_back(recall(result));
  return all;
}

}  // namespace weft
