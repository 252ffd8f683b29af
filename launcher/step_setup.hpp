// From options to what a training step does on one rank.
#pragma once
#include "launcher/options.hpp"
#include "launcher/training_step.hpp"

namespace weft {

/// `compute` and `sharding` are resolved. Without --micro-batch a rank takes as many sequences at a time as make up
/// tokens_at_a_time, if they divide its batch.
StepOptions make_step_options(const Options& options, const Mesh& mesh, DType compute, const ShardingOptions& sharding);

}  // namespace weft
