// Recurrences that serialise over the tokens: Elman's network, the LSTM and the GRU (core/kernels/recurrent.hpp).
#pragma once
#include <memory>

#include "models/mixers/mixer.hpp"

namespace weft {

/// d_model hidden units. Weights start as U(±1/√d_model) and biases at 0, but the LSTM's forget gate's at 1.
std::unique_ptr<Mixer> make_elman(const BuildContext& build, const MixerOptions& options);
std::unique_ptr<Mixer> make_lstm(const BuildContext& build, const MixerOptions& options);
std::unique_ptr<Mixer> make_gru(const BuildContext& build, const MixerOptions& options);

}  // namespace weft
