// ZeRO (Rajbhandari et al. 2020): ranks that would hold the same share it out. Which ranks they are, a parameter's slice says:
// those that sum its gradient, so dp and sp, and for norms over shared-out rows also tp.
#pragma once
#include <cstddef>
#include <cstdint>

#include "core/nn/parameter_store.hpp"
#include "parallel/mesh.hpp"

namespace weft {

/// What is shared out, each stage with what the ones before it share.
enum class ZeroStage : std::uint8_t { none, optimizer, gradients, parameters };

/// The axes over which a parameter's gradient is a sum.
AxisSet summed_axes(const Slice& slice);

/// How the stage cuts flat buffers: into buckets of about so many bytes, alike on all ranks.
FlatCut cut_for(ZeroStage stage, std::size_t bucket_bytes, const Mesh& mesh);

/// Lays the store out and allocates its values and gradients as the stage keeps them.
void allocate_parameters(ExecContext& exec, ParameterStore& store, const Mesh& mesh, ZeroStage stage,
                         std::size_t bucket_bytes = FlatCut{}.bucket_bytes);

}  // namespace weft
