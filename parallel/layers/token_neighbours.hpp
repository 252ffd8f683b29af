// The parts of sequences whose tokens lie over the sequence-parallel ranks, in order.
#pragma once
#include <memory>

#include "core/ops/neighbours.hpp"
#include "parallel/build_context.hpp"

namespace weft {

/// Null where sp is 1. States go by an exclusive scan of the affine maps that the parts are: every rank gathers all parts'
/// maps, 8 bytes a channel and sequence of each, and folds those before its own. Throws UserError without contiguous tokens.
std::shared_ptr<const ops::SequenceNeighbours> token_neighbours(const BuildContext& build);

}  // namespace weft
