// Elementwise reductions of received pieces. Memory-bound; results do not depend on the vector width.
#pragma once
#include <cstdint>
#include <span>

#include "core/base/dtype.hpp"
#include "core/kernels/exec.hpp"
#include "parallel/comm/collective.hpp"

namespace weft {

/// f32, bf16, f64, i32, i64 and u8 reduce.
bool can_reduce(DType dtype);

/// out = op(a, b) over `count` elements; out may be a or b. NaN wins in max and min.
void combine(ReduceOp op, DType dtype, void* out, const void* a, const void* b, std::int64_t count);

/// out = Σ parts, summed in f32 in the order of `parts`; out may be one of them.
void sum_bf16(std::span<const bf16* const> parts, float* out, std::int64_t count);
void sum_bf16(std::span<const bf16* const> parts, bf16* out, std::int64_t count);

void to_bf16(const float* x, bf16* y, std::int64_t count);
void to_f32(const bf16* x, float* y, std::int64_t count);

/// The value that leaves every other unchanged under op.
void fill_identity(ReduceOp op, MutView x);
/// The same in memory of exec's device; integers come from the host.
void fill_identity(ExecContext& exec, ReduceOp op, MutView x);

}  // namespace weft
