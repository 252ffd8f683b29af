// The index of a checkpoint: which file holds which part of which logical tensor, and the run's state. Knows no ranks: any
// number of readers can take any part.
#pragma once
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "core/tensor/slice.hpp"

namespace weft {

/// A part of a logical tensor in a safetensors file.
struct CheckpointPiece {
  std::string file;      ///< in the checkpoint's folder
  std::string key;       ///< name in that file
  Box box;               ///< of the logical tensor
  std::string checksum;  ///< of the piece's bytes, as checksum_text()
};

struct CheckpointTensor {
  Shape shape;  ///< logical
  std::vector<CheckpointPiece> pieces;
};

/// What a run goes on from.
struct RunState {
  std::int64_t step = 0;          ///< steps taken
  std::int64_t applied = 0;       ///< of them not skipped
  std::int64_t next_sample = 0;   ///< the sampler's position
  std::int64_t epoch_samples = 0; ///< samples in an epoch of that order
  std::int64_t tokens = 0;
  std::uint64_t seed = 0;
  std::int64_t skipped_in_a_row = 0;
};

struct CheckpointIndex {
  RunState state;
  std::string config;                              ///< the run's options, `key = value` lines
  std::map<std::string, CheckpointTensor> tensors; ///< parameters by name; optimizer state as "optimizer.m/NAME"
  std::map<std::string, std::string> aliases;      ///< tied weights: alias → name
  std::map<std::string, std::uint64_t> files;      ///< sizes in bytes
};

/// JSON text that carries its own checksum.
std::string encode_index(const CheckpointIndex& index);

/// What encode_index() made; throws UserError that names `path` when the text is damaged.
CheckpointIndex decode_index(std::string_view text, const std::filesystem::path& path);

/// Throws UserError when a file that the index lists is missing in `folder` or of another size.
void check_files(const CheckpointIndex& index, const std::filesystem::path& folder);

}  // namespace weft
