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
    {.name = "attention", .make = &make_attention, .uses_heads = true, .shards_tp = true, .shards_sp = true},
    {"elman", &make_elman, PositionStyle::none},
    {"gru", &make_gru, PositionStyle::none},
    {"lstm", &make_lstm, PositionStyle::none},
    {.name = "mean", .make = &make_mean, .shards_sp = true},
    {.name = "mingru", .make = &make_mingru, .positions = PositionStyle::none, .shards_tp = true, .shards_sp = true},
    {.name = "minlstm", .make = &make_minlstm, .positions = PositionStyle::none, .shards_tp = true, .shards_sp = true},
    {.name = "qrnn",
     .make = &make_qrnn,
     .positions = PositionStyle::none,
     .shards_tp = true,
     .shards_sp = true,
     .whole_rows = true},
    {.name = "qrnn-f", .make = &make_qrnn_f, .positions = PositionStyle::none, .shards_tp = true, .shards_sp = true},
    {"sru", &make_sru, PositionStyle::none},
    {.name = "sru-affine", .make = &make_sru_affine, .positions = PositionStyle::none, .shards_sp = true},
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
