#include "models/registry.hpp"

#include <algorithm>
#include <array>

#include "models/mixers/attention.hpp"
#include "models/mixers/recurrent.hpp"

namespace weft {
namespace {

constexpr auto table = std::to_array<MixerEntry>({
    {"attention", &make_attention},
    {"elman", &make_elman},
    {"lstm", &make_lstm},
    {"gru", &make_gru},
});

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
