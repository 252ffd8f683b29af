// SRU++ (Lei 2021, "When attention meets fast recurrence"): the SRU's product goes through a narrow layer, where every few
// blocks a single head attends.
#pragma once
#include <memory>

#include "models/mixers/mixer.hpp"

namespace weft {

/// Throws UserError when attention would be wider than its kernel takes.
std::unique_ptr<Mixer> make_sru_plus_plus(const BuildContext& build, const MixerOptions& options);

}  // namespace weft
