// The tensor-parallel ranks that have the other hidden units of a recurrence.
#pragma once
#include <memory>

#include "core/ops/unit_exchange.hpp"
#include "parallel/build_context.hpp"

namespace weft {

/// Null where tp is 1. States by an all-gather in the activations' dtype, their gradients by a reduce-scatter in f32; shares are
/// filled up to the largest.
std::shared_ptr<const ops::UnitExchange> unit_exchange(const BuildContext& build, std::int64_t hidden);

}  // namespace weft
