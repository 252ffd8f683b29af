// Single headed attention with an LSTM and the Boom layer (Merity 2019, "Single Headed Attention RNN: Stop Thinking With Your
// Head"): a whole block, norms and feed-forward with it, for stacks of mixers alone.
#pragma once
#include "models/mixers/mixer.hpp"

namespace weft {

/// The block attends where (layer + 1) mod attention_every = 0; a stack of n layers whose last but one attends, as in the paper,
/// has attention_every = n − 1. Throws UserError where an attending block is wider than a head can be.
std::unique_ptr<Mixer> make_sha_rnn(const BuildContext& build, const MixerOptions& options);

}  // namespace weft
