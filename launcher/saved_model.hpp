// A model as a checkpoint holds it, for evaluation and sampling.
#pragma once
#include <filesystem>
#include <memory>

#include "launcher/model_setup.hpp"
#include "launcher/session.hpp"

namespace weft {

struct SavedModel {
  std::filesystem::path folder;  ///< of the checkpoint
  Options trained;               ///< the options it was trained with
  ShardingOptions sharding;      ///< of this run, not of the training
  std::unique_ptr<BuiltModel> built;
};

/// `path` is a checkpoint or a run's folder (its latest checkpoint). Throws UserError when there is none, it is damaged, or
/// its model does not fit the layout.
SavedModel load_saved_model(Session& session, const std::filesystem::path& path, const LayoutOptions& layout);

}  // namespace weft
