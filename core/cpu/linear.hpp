// Matrix products with a weight, and the loss on top of one.
#pragma once
#include "core/cpu/backend.hpp"

namespace weft::cpu {

/// Fills table.linear with the kernels of one instruction set. Their ExecContext::backend must come from make_state().
void bind_linear(KernelTable& table, Isa isa);

}  // namespace weft::cpu
