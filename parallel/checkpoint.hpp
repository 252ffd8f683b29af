// Sharded checkpoints that any number of ranks can resume: each rank writes its share in parallel, one rename makes the
// whole folder appear.
#pragma once
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "core/io/file_system.hpp"
#include "core/nn/parameter_store.hpp"
#include "core/optim/optimizer.hpp"
#include "parallel/checkpoint_index.hpp"
#include "parallel/comm/communicator.hpp"

namespace weft {

/// What a checkpoint holds of a run; `optimizer` may be null when reading (evaluation, sampling).
struct CheckpointTarget {
  ExecContext& exec;
  ParameterStore& parameters;
  Optimizer* optimizer = nullptr;
};

/// Collective over `world`. Writes parent/step-NNNNNNNN. A failure on any rank (a full disk) leaves earlier checkpoints as
/// they are, removes what was written, and is returned as one line on all ranks; nothing is returned on success.
std::optional<std::string> save_checkpoint(Communicator& world, const std::filesystem::path& parent,
                                           const CheckpointTarget& target, const RunState& state,
                                           const std::string& config, const FileSystem& files = FileSystem::posix());

/// Collective over `world`. Rank 0's index for every rank, whatever another rank sees of the file system; each rank checks
/// that the files which it lists are there. All ranks throw the same UserError when one of them finds damage.
CheckpointIndex read_index(Communicator& world, const std::filesystem::path& folder);

/// Collective over `world`. Reads parameters, and optimizer state if there is an optimizer, of this rank's slices; their bytes
/// must have the checksums of `index`, from read_index(). All ranks throw the same UserError when one of them finds damage or
/// a checkpoint of another model (names the first tensor that differs).
void load_checkpoint(Communicator& world, const CheckpointIndex& index, const std::filesystem::path& folder,
                     const CheckpointTarget& target);

/// Complete checkpoints below `parent`, by step; folders that a person named otherwise are left out.
std::vector<std::filesystem::path> list_checkpoints(const std::filesystem::path& parent);

/// A checkpoint's folder as it is, or the latest one of a run's folder. Throws UserError when there is none.
std::filesystem::path find_checkpoint(const std::filesystem::path& path);

/// Removes all but the newest `keep` checkpoints (0: keeps all). Rank 0 calls it after a save.
void prune_checkpoints(const std::filesystem::path& parent, std::int64_t keep);

/// Removes checkpoints of later steps: of a course of the run that was given up for an earlier start. Rank 0 calls it after a
/// save.
void remove_checkpoints_after(const std::filesystem::path& parent, std::int64_t step);

}  // namespace weft
