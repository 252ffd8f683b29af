// Weights in the dtype that their products compute in.
#pragma once
#include "core/kernels/matrix_view.hpp"
#include "core/kernels/linear.hpp"

namespace weft::cuda {

/// Rows of a bf16 copy of a weight of `outputs` rows; those behind hold zeros. A product whose columns are these rows
/// stays aligned where the outputs (a vocabulary) are odd.
constexpr std::int64_t padded_outputs(std::int64_t outputs) { return (outputs + 63) / 64 * 64; }

/// Bytes of scratch that weight_for wants.
std::size_t weight_scratch(const WeightRef& w, DType dtype);

/// The weight [N, K] in `dtype`: in f32 the master itself; in bf16 the copy in w.pack, made anew if the weight's version
/// has moved on, or without a place for one a copy in `scratch`.
ConstMatrix weight_for(ExecContext& exec, const WeightRef& w, DType dtype, void* scratch);

/// y[i] = x[i], rounded.
void narrow(ExecContext& exec, const float* x, std::int64_t count, bf16* y);

}  // namespace weft::cuda
