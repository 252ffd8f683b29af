#include "core/autograd/ledger.hpp"

#include <algorithm>

namespace weft {

void CostLedger::add(Entry entry) {
  Totals& totals = totals_[static_cast<int>(entry.pass)];
  totals.flops += entry.cost.flops;
  totals.bytes += entry.cost.bytes;
  totals.span = std::max(totals.span, entry.depth_end);
  totals.span_min = std::max(totals.span_min, entry.min_depth_end);
  entries_.push_back(entry);
}

void CostLedger::clear() {
  entries_.clear();
  for (Totals& totals : totals_) totals = {};
}

}  // namespace weft
