// What a layout takes of each rank's memory, before anything is allocated: the step itself is run on a device that only
// counts, among ranks that are not there.
#pragma once
#include <string>

#include "core/optim/optimizer.hpp"
#include "launcher/training_step.hpp"
#include "models/config.hpp"

namespace weft {

/// All that a training's memory depends on.
struct MemoryPlan {
  LmConfig model;
  OptimizerSpec optimizer;
  StepOptions step;
  std::size_t bucket_bytes = FlatCut{}.bucket_bytes;
  MeshSizes mesh;  ///< all sizes given
  int rank = 0;
  DeviceKind device = DeviceKind::cpu;
  DeviceFacts facts;
  int threads = 1;
  std::int64_t validated = 0;  ///< sequences that a rank validates at a time; 0: none
  bool recorded = false;       ///< steps are recorded: what they use stays theirs while the ranks validate
};

/// Highest bytes by use, as the device's allocator would count them, without kernels' scratch memory. The total has what a
/// recorded step keeps beside what is in use.
MemoryStats predict_memory(const MemoryPlan& plan);

/// Nothing where the plan fits `limit` bytes, else one line: what it takes, by how much that is too much, and which ZeRO stages
/// and recomputations would fit.
std::string memory_misfit(const MemoryPlan& plan, std::size_t limit);

}  // namespace weft
