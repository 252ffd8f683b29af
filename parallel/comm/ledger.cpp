#include "parallel/comm/ledger.hpp"

namespace weft {

void CollectiveLedger::ended(const std::string& group, CollectiveKind kind, std::uint64_t bytes, double seconds) {
  auto& totals = groups_[group][static_cast<std::size_t>(kind)];
  ++totals.count;
  totals.wire_bytes += bytes;
  totals.total_seconds += seconds;
  wire_bytes_ += bytes;
}

void CollectiveLedger::exposed(const std::string& group, CollectiveKind kind, double seconds) {
  groups_[group][static_cast<std::size_t>(kind)].exposed_seconds += seconds;
  exposed_seconds_ += seconds;
}

std::vector<CollectiveTotals> CollectiveLedger::totals() const {
  std::vector<CollectiveTotals> all;
  for (const auto& [group, kinds] : groups_)
    for (std::size_t kind = 0; kind < kinds.size(); ++kind)
      if (kinds[kind].count > 0 || kinds[kind].exposed_seconds > 0) {
        all.push_back(kinds[kind]);
        all.back().group = group;
        all.back().kind = static_cast<CollectiveKind>(kind);
      }
  return all;
}

}  // namespace weft
