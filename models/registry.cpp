#include "models/registry.hpp"

#include <algorithm>
#include <array>

#include "models/mixers/affine_recurrence.hpp"
#include "models/mixers/attention.hpp"
#include "models/mixers/mean.hpp"
#include "models/mixers/recurrent.hpp"
#include "models/mixers/sha_rnn.hpp"
#include "models/mixers/sru.hpp"
#include "models/mixers/sru_plus_plus.hpp"
#include "models/mixers/transformer_xl.hpp"

namespace weft {
namespace {

constexpr auto table = std::to_array<MixerEntry>({
    {.name = "attention", .make = &make_attention, .uses_heads = true, .shards_tp = true, .shards_sp = true},
    {.name = "elman", .make = &make_elman, .positions = PositionStyle::none, .shards_tp = true, .shards_sp = true},
    {.name = "gru", .make = &make_gru, .positions = PositionStyle::none, .shards_tp = true, .shards_sp = true},
    {.name = "lstm", .make = &make_lstm, .positions = PositionStyle::none, .shards_tp = true, .shards_sp = true},
    {.name = "mean", .make = &make_mean, .shards_tp = true, .shards_sp = true},
    {.name = "mingru", .make = &make_mingru, .positions = PositionStyle::none, .shards_tp = true, .shards_sp = true},
    {.name = "minlstm", .make = &make_minlstm, .positions = PositionStyle::none, .shards_tp = true, .shards_sp = true},
    {.name = "qrnn",
     .make = &make_qrnn,
     .positions = PositionStyle::none,
     .shards_tp = true,
     .shards_sp = true,
     .whole_rows = true},
    {.name = "qrnn-f", .make = &make_qrnn_f, .positions = PositionStyle::none, .shards_tp = true, .shards_sp = true},
    {"sha-rnn", &make_sha_rnn, PositionStyle::none},
    {.name = "sru", .make = &make_sru, .positions = PositionStyle::none, .shards_tp = true, .shards_sp = true},
    {.name = "sru-affine",
     .make = &make_sru_affine,
     .positions = PositionStyle::none,
     .shards_tp = true,
     .shards_sp = true},
    {.name = "srupp",
     .make = &make_sru_plus_plus,
     .positions = PositionStyle::none,
     .shards_tp = true,
     .shards_sp = true},
    {.name = "transformer-xl",
     .make = &make_transformer_xl,
     .positions = PositionStyle::none,
     .uses_heads = true,
     .shards_tp = true},
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

std::string mixer_misfit(const MixerEntry& mixer, int sp, int tp, bool shared_rows) {
  const auto refused = [&](std::string_view axis, int ranks, std::string_view why) {
    return fmt::format("--{}: found {}; the mixer {} {}, 1 would be right", axis, ranks, mixer.name, why);
  };
  if (sp > 1 && !mixer.shards_sp) return refused("sp", sp, "works on whole sequences on one rank");
  if (tp > 1 && !mixer.shards_tp) return refused("tp", tp, "has all its channels on one rank");
  if (tp > 1 && shared_rows && mixer.whole_rows)
    return fmt::format("--tp-sequence: found on; the mixer {} needs all rows of the stream, off would be right",
                       mixer.name);
  return {};
}

}  // namespace weft
