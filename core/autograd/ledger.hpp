// The cost ledger: what each recorded operation costs, and the work and span of a pass.
#pragma once
#include <string_view>
#include <vector>

#include "core/autograd/parameter.hpp"
#include "core/kernels/slot.hpp"

namespace weft {

class CostLedger {
 public:
  struct Entry {
    std::string_view op;
    Pass pass;
    Cost cost;
    double depth_end;      ///< dependent levels from the pass's start to this operation's end, as executed
    double min_depth_end;  ///< the same by the least that the mathematics allows
  };
  /// Sums over a pass.
  struct Totals {
    double flops = 0;
    double bytes = 0;
    double span = 0;      ///< longest chain of dependent levels, as executed
    double span_min = 0;  ///< the least that the mathematics allows
  };

  void add(Entry entry);
  void clear();
  const std::vector<Entry>& entries() const { return entries_; }
  const Totals& totals(Pass pass) const { return totals_[static_cast<int>(pass)]; }

 private:
  std::vector<Entry> entries_;
  Totals totals_[3];
};

}  // namespace weft
