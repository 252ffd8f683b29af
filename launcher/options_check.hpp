// What must hold between options, and the values that follow from others.
#pragma once
#include "launcher/options.hpp"

namespace weft {

/// Throws UserError when the command lacks an option, or its output folder cannot be made.
void check_needed(const Options& options);
/// Fills in what was left to follow from other options (kv_heads, d_ff, warmup, min_lr).
void resolve(Options& options);
/// Throws UserError when resolved values do not fit together.
void check_fit(const Options& options);

/// Throws UserError, naming the first, when an option differs that changes what a model of the same tensors computes. `where` is
/// the checkpoint that was made with `before`.
void check_same_model(const Options& now, const Options& before, std::string_view where);

}  // namespace weft
