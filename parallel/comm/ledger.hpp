// What communication cost: totals by group and operation.
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "parallel/comm/collective.hpp"

namespace weft {

struct CollectiveTotals {
  std::string group;
  CollectiveKind kind = CollectiveKind::barrier;
  std::uint64_t count = 0;
  std::uint64_t wire_bytes = 0;  ///< that this rank sent (see wire_bytes())
  double total_seconds = 0;      ///< from start to end, overlap included
  double exposed_seconds = 0;    ///< that callers were blocked in wait()
};

/// Not thread-safe; CommLog guards it.
class CollectiveLedger {
 public:
  void ended(const std::string& group, CollectiveKind kind, std::uint64_t bytes, double seconds);
  void exposed(const std::string& group, CollectiveKind kind, double seconds);
  std::vector<CollectiveTotals> totals() const;
  double exposed_seconds() const { return exposed_seconds_; }
  std::uint64_t wire_bytes() const { return wire_bytes_; }

 private:
  std::map<std::string, std::array<CollectiveTotals, collective_kind_count>> groups_;
  double exposed_seconds_ = 0;
  std::uint64_t wire_bytes_ = 0;
};

}  // namespace weft
