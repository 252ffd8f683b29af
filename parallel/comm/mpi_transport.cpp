#include "parallel/comm/mpi_transport.hpp"

#include <algorithm>

namespace weft {

MpiTransport::MpiTransport(MpiEngine& engine, const std::vector<RankPlace>& places, std::shared_ptr<MpiGroup> group)
    : engine_(engine), places_(places), group_(std::move(group)) {
  engine_.reserve_context(group_->context);
  const auto host = [&](int member) -> const std::string& { return places_[static_cast<std::size_t>(member)].host; };
  const std::string& first = host(group_->members.front());
  group_->spans_hosts =
      std::any_of(group_->members.begin(), group_->members.end(), [&](int member) { return host(member) != first; });
}

std::unique_ptr<Transport> MpiTransport::subgroup(const std::vector<int>& members, int context,
                                                  const std::string& name) {
  auto group = std::make_shared<MpiGroup>();
  group->name = name;
  group->context = context;
  for (const int member : members) group->members.push_back(group_->members[static_cast<std::size_t>(member)]);
  group->rank = static_cast<int>(std::find(members.begin(), members.end(), group_->rank) - members.begin());
  return std::make_unique<MpiTransport>(engine_, places_, std::move(group));
}

}  // namespace weft
