// From options to a model in memory.
#pragma once
#include <memory>

#include "core/optim/optimizer.hpp"
#include "core/optim/schedule.hpp"
#include "launcher/options.hpp"
#include "models/language_model.hpp"
#include "parallel/mesh.hpp"

namespace weft {

/// Throws UserError when --vocab is below the data's, naming both. `data_vocab` 0: unknown.
LmConfig make_lm_config(const ModelOptions& options, std::int64_t seq, std::int64_t data_vocab);
OptimizerSpec make_optimizer_spec(const OptimOptions& options);
Schedule make_schedule(const ScheduleOptions& options, std::int64_t steps);

/// Refuses axes that this build cannot run, with the option's name.
void check_layout(const LayoutOptions& layout);

/// A model with its parameters.
struct BuiltModel {
  ParameterStore store;
  std::unique_ptr<LanguageModel> model;
};

/// Parameters are named and sized, not yet allocated.
std::unique_ptr<BuiltModel> build_model(const LmConfig& config, Mesh& mesh, const ShardingOptions& sharding = {});

}  // namespace weft
