// The lens's plots, each with what it shows in words drawn from its figures.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "launcher/lens/lens.hpp"
#include "launcher/plot.hpp"

namespace weft {

struct Reading {
  std::string file;  ///< name without ending
  Plot plot;
  std::string text;
};

/// What there is to show: without ranks there are no speed-ups, with one batch no gain of a full one.
std::vector<Reading> readings(const LensResult& result);

/// Operations and dependent levels of n tokens d wide (Vaswani et al. 2017, table 1, and Martin & Cundy 2018 for scans).
struct Textbook {
  std::string_view model, work, depth;
};
/// With "-" for a mixer that is in no book.
Textbook textbook_of(std::string_view model);

/// The row of one rank at this place; null if there is none.
const LensRow* one_rank_row(const LensResult& result, std::string_view model, std::int64_t seq, std::int64_t width,
                            std::int64_t batch);

/// Values of a model's rows of one rank over the length, at the smallest width and batch.
template <class Value>
std::vector<PlotPoint> over_length(const LensResult& result, std::string_view model, Value value) {
  std::vector<PlotPoint> points;
  for (const std::int64_t seq : result.spec.lengths)
    if (const LensRow* row = one_rank_row(result, model, seq, result.spec.widths.front(), result.spec.batches.front()))
      points.push_back({static_cast<double>(seq), value(*row)});
  return points;
}

/// The same over the width, at the greatest length.
template <class Value>
std::vector<PlotPoint> over_width(const LensResult& result, std::string_view model, Value value) {
  std::vector<PlotPoint> points;
  for (const std::int64_t width : result.spec.widths)
    if (const LensRow* row =
            one_rank_row(result, model, result.spec.lengths.back(), width, result.spec.batches.front()))
      points.push_back({static_cast<double>(width), value(*row)});
  return points;
}

}  // namespace weft
