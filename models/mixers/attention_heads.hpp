// The heads that a rank holds of attention's fused projection [q|k|v], for each mixer that has one.
#pragma once
#include "core/ops/attention.hpp"
#include "models/mixers/mixer.hpp"
#include "parallel/layers/linear.hpp"

namespace weft {

/// Throws UserError when the heads do not divide the width or the key-value heads the heads, when a head is wider than the
/// kernels take, and when the heads do not go over the tp ranks.
HeadShare held_heads(const BuildContext& build, const MixerOptions& options);

ops::HeadLayout head_layout(const HeadShare& held, const MixerOptions& options);

/// Rows of the fused projection: this rank's, and of all ranks.
std::vector<WeightRows> projection_rows(const HeadShare& held, const MixerOptions& options);
std::int64_t projection_width(const MixerOptions& options);

}  // namespace weft
