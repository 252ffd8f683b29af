// What ranks hold of a checkpoint's tensors, and which of them writes what.
#pragma once
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "parallel/checkpoint.hpp"

namespace weft {

inline constexpr std::string_view checkpoint_prefix = "step-";

/// A stored tensor of this rank: a parameter or one of its optimizer moments.
struct StoredTensor {
  std::string name;
  Slice slice;
  MutView data;
};

/// A box of a stored tensor that this rank holds.
struct StoredPart {
  const StoredTensor* tensor;
  Box box;
  View data;

  /// The same on all ranks that hold it: the tensor's name, and where it is not all of that, where it begins and how large
  /// it is.
  std::string key() const;
};

std::vector<StoredTensor> stored_tensors(const CheckpointTarget& target);
/// What this rank may write of them.
std::vector<StoredPart> parts_of(const std::vector<StoredTensor>& tensors);

/// Collective. Each part goes to one of the ranks that hold it, so that all write about as much; every rank knows all.
std::unordered_map<std::string, int> deal_parts(Communicator& world, const std::vector<StoredPart>& parts);

}  // namespace weft
