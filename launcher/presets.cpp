// The names that --model takes: the presets and mixers that the models room has.
#include "launcher/options.hpp"
#include "models/registry.hpp"

namespace weft {

ModelNames model_names() {
  ModelNames names;
  for (const std::string_view name : preset_names()) names.presets.emplace_back(name);
  for (const MixerEntry& mixer : mixers()) names.mixers.emplace_back(mixer.name);
  names.preset = find_preset;
  return names;
}

}  // namespace weft
