// Multi-head softmax attention (Vaswani et al. 2017) with grouped-query heads and rotary positions.
#pragma once
#include <memory>

#include "models/mixers/mixer.hpp"

namespace weft {

/// Throws UserError when the heads do not divide the width, or the key-value heads the heads.
std::unique_ptr<Mixer> make_attention(const BuildContext& build, const MixerOptions& options);

}  // namespace weft
