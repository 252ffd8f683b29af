// The names that --model takes: the presets and mixers that the models room has.
#include <fmt/format.h>

#include "launcher/options.hpp"
#include "models/registry.hpp"

namespace weft {
namespace {

std::optional<std::string> preset_text(std::string_view name) {
  if (auto text = find_preset(name)) return text;
  for (const MixerEntry& mixer : mixers())
    if (mixer.name == name)
      return fmt::format("mixer = {}\n{}{}", name, mixer.positions == PositionStyle::none ? "positions = none\n" : "",
                         mixer.uses_heads ? "" : "heads = 1\n");
  return std::nullopt;
}

}  // namespace

ModelNames model_names() {
  ModelNames names;
  for (const std::string_view name : preset_names()) names.presets.emplace_back(name);
  for (const MixerEntry& mixer : mixers()) names.mixers.emplace_back(mixer.name);
  names.preset = preset_text;
  return names;
}

}  // namespace weft
