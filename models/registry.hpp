// The mixer registry: one visible table, name → factory.
#pragma once
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "models/config.hpp"
#include "models/mixers/mixer.hpp"

namespace weft {

struct MixerEntry {
  std::string_view name;
  std::unique_ptr<Mixer> (*make)(const BuildContext&, const MixerOptions&);
  /// How positions enter the standard blocks when the mixer is all that --model says: a recurrence knows the order itself.
  PositionStyle positions = PositionStyle::learned;
  bool uses_heads = false;
  bool shards_tp = false;  ///< over tp by heads or channels
  bool shards_sp = false;  ///< over sp by tokens
  /// Over tp only where the stream is not shared out: it reads neighbouring tokens of its input.
  bool whole_rows = false;
};

std::span<const MixerEntry> mixers();

/// Throws UserError that lists the mixers when there is none of that name.
const MixerEntry& find_mixer(std::string_view name);

/// One line that names the option where the mixer does not go over so many ranks, or, with `shared_rows`, over tp ranks that
/// share the stream's rows out; empty where it does.
std::string mixer_misfit(const MixerEntry& mixer, int sp, int tp, bool shared_rows);

/// A model preset's text (`option = value` lines) by name; nothing where there is none.
std::optional<std::string> find_preset(std::string_view name);
/// Names of all presets, in order.
std::span<const std::string_view> preset_names();

}  // namespace weft
