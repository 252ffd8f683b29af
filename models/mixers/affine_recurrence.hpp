// Recurrences whose gates see the input alone: they are affine in the state and run in parallel over time.
#pragma once
#include <memory>

#include "core/kernels/scan.hpp"
#include "models/mixers/mixer.hpp"

namespace weft {

struct AffineRecurrenceOptions {
  ScanCell cell = ScanCell::qrnn_fo;
  std::int64_t window = 1;  ///< tokens that the gates see: this one and those before it
};

/// [gates] = W [x_t; x_{t−1}; …] + b, the cell, and a projection. Not causal: the latter half of the channels runs from the
/// last token on. Throws UserError when two directions do not divide the width.
std::unique_ptr<Mixer> make_affine_recurrence(const BuildContext& build, const MixerOptions& options,
                                              const AffineRecurrenceOptions& recurrence);

/// Quasi-recurrent network with fo-pooling and a window of 2 (Bradbury et al. 2017).
std::unique_ptr<Mixer> make_qrnn(const BuildContext& build, const MixerOptions& options);
/// With f-pooling and a window of 1.
std::unique_ptr<Mixer> make_qrnn_f(const BuildContext& build, const MixerOptions& options);
/// Feng et al. 2024, "Were RNNs all we needed?".
std::unique_ptr<Mixer> make_mingru(const BuildContext& build, const MixerOptions& options);
std::unique_ptr<Mixer> make_minlstm(const BuildContext& build, const MixerOptions& options);

}  // namespace weft
