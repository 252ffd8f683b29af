// Simple recurrent units (Lei et al. 2017, 2018): one product for all steps, then an elementwise recurrence with a highway.
#pragma once
#include <memory>

#include "models/mixers/mixer.hpp"

namespace weft {

struct SruOptions {
  bool state_in_gates = true;  ///< v: the gates see the state; without it the recurrence is affine and runs in parallel
  bool tanh = false;           ///< on the state before the highway
  /// Channels of the state, of both directions where the mixer is not causal; 0: d_model. Another width than d_model has a
  /// fourth matrix for the highway and a projection back.
  std::int64_t width = 0;
  float highway_bias = 0;  ///< b_r at the start
  bool rescale = false;    ///< the highway's input by √(1 + 2·exp(highway_bias)), to keep the variance at the start
};

/// Dropout is one mask a sequence on the highway's gate. Throws UserError when two directions do not divide the width.
std::unique_ptr<Mixer> make_sru_with(const BuildContext& build, const MixerOptions& options, const SruOptions& sru);

std::unique_ptr<Mixer> make_sru(const BuildContext& build, const MixerOptions& options);
/// With gates that do not see the state.
std::unique_ptr<Mixer> make_sru_affine(const BuildContext& build, const MixerOptions& options);

}  // namespace weft
