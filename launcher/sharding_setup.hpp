// From the layout's options to how a model is spread, with what fits where something does not.
#pragma once
#include <string>

#include "launcher/options.hpp"
#include "models/config.hpp"
#include "parallel/build_context.hpp"

namespace weft {

/// What a layout must suit beside the model; 0 where it does not matter.
struct LayoutNeeds {
  std::int64_t seq = 0;
  std::int64_t batch = 0;
};

/// What is wrong with a mesh for the model, in words that name the option; empty if it fits. dp is not 0.
std::string layout_misfit(const MeshSizes& mesh, const LayoutOptions& layout, const LmConfig& config,
                          const LayoutNeeds& needs);

/// Resolves `auto`. Throws UserError, the same on all ranks, when heads, feed-forward, vocabulary, tokens or sequences do not go
/// over the mesh: it names the option and lists the layouts of so many ranks that fit.
ShardingOptions plan_sharding(const LayoutOptions& layout, const LmConfig& config, const LayoutNeeds& needs,
                              const Mesh& mesh);

}  // namespace weft
