#include "models/registry.hpp"

#include <algorithm>
#include <array>

#include "models/mixers/affine_recurrence.hpp"
#include "models/mixers/attention.hpp"
#include "models/mixers/mean.hpp"
#include "models/mixers/recurrent.hpp"
#include "models/mixers/sru.hpp"
#include "models/mixers/sru_plus_plus.hpp"

namespace weft {
namespace {

constexpr auto table = std::to_array<MixerEntry>({
    {.name = "attention", .make = &make_attention, .uses_heads = true, .shards = true},
    {"elman", &make_elman, PositionStyle::none},
    {"gru", &make_gru, PositionStyle::none},
    {"lstm", &make_lstm, PositionStyle::none},
    {"mean", &make_mean},
    {"mingru", &make_mingru, PositionStyle::none},
    {"minlstm", &make_minlstm, PositionStyle::none},
    {"qrnn", &make_qrnn, PositionStyle::none},
    {"qrnn-f", &make_qrnn_f, PositionStyle::none},
    {"sru", &make_sru, PositionStyle::none},
    {"sru-affine", &make_sru_affine, PositionStyle::none},
    {"srupp", &make_sru_plus_plus, PositionStyle::none},
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
