// The mean of the tokens so far, each through an MLP: what a sequence costs at depth 1 without attention.
#pragma once
#include <memory>

#include "models/mixers/mixer.hpp"

namespace weft {

/// Throws UserError where it is not causal.
std::unique_ptr<Mixer> make_mean(const BuildContext& build, const MixerOptions& options);

}  // namespace weft
