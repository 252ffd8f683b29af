#include "models/registry.hpp"

#include <algorithm>
#include <array>

#include "models/mixers/attention.hpp"

namespace weft {
namespace {

constexpr std::array<MixerEntry, 1> table = {{
    {"attention", &make_attention},
}};

}  // namespace

std::span<const MixerEntry> mixers() { return table; }

const MixerEntry& find_mixer(std::string_view name) {
  const auto found = std::ranges::find(table, name, &MixerEntry::name);
  if (found != table.end()) return *found;
  std::string names;
  for (const MixerEntry& entry : table) names += (names.empty() ? "" : ", ") + std::string(entry.name);
  fail_user("--model: there is no mixer \"{}\"; there are {}", name, names);
}

}  // namespace weft
