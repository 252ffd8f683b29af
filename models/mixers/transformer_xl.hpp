// Attention with relative positions and segment memory: Transformer-XL (Dai et al. 2019).
#pragma once
#include <memory>

#include "models/mixers/mixer.hpp"

namespace weft {

/// Throws UserError when the heads do not divide the width or the key-value heads the heads, when the width is odd, or a head wider than 256.
std::unique_ptr<Mixer> make_transformer_xl(const BuildContext& build, const MixerOptions& options);

}  // namespace weft
