// Checks of kernels' arguments that backends share. They look at views, never at what lies in memory.
#pragma once
#include <algorithm>
#include <utility>

#include "core/kernels/attention.hpp"
#include "core/kernels/norm.hpp"
#include "core/kernels/recurrent.hpp"
#include "core/tensor/view.hpp"

namespace weft {

/// Checks that a view, if it is there, is contiguous and has this shape and dtype.
inline void check_like(const View& view, const Shape& shape, DType dtype, const char* name) {
  if (!view) return;
  WEFT_CHECK(view.contiguous(), "{} is not contiguous", name);
  WEFT_CHECK(view.numel() == shape.numel() && view.cols() == (shape.rank() ? shape[-1] : 1), "{} is {}, expected {}",
             name, to_string(view.shape), to_string(shape));
  WEFT_CHECK(view.dtype == dtype, "{} is {}, expected {}", name, name_of(view.dtype), name_of(dtype));
}

/// Checks that a view, if it is there, has `count` contiguous f32 elements in any shape.
inline void check_count(const View& view, std::int64_t count, const char* name) {
  if (!view) return;
  WEFT_CHECK(view.contiguous() && view.numel() == count && view.dtype == DType::f32, "{} is {} {}, expected {} f32",
             name, name_of(view.dtype), to_string(view.shape), count);
}

/// The same as check_like for a view that must be there, unless it has no elements.
inline void check_given(const View& view, const Shape& shape, DType dtype, const char* name) {
  WEFT_CHECK(view || shape.numel() == 0, "{} is missing", name);
  check_like(view, shape, dtype, name);
}

inline float* floats(const MutView& view) { return static_cast<float*>(view.data); }
inline const float* floats(const View& view) { return static_cast<const float*>(view.data); }

inline void check_transfer(const View& from, const View& to) {
  WEFT_CHECK(from.contiguous() && to.contiguous() && from.bytes() == to.bytes(), "{} bytes of {} into {} of {}",
             from.bytes(), to_string(from.shape), to.bytes(), to_string(to.shape));
  WEFT_CHECK((from && to) || from.bytes() == 0, "a copy without memory");
}

inline void check_norm_forward(const View& x, const View& branch, const View& gain, const View& bias, const View& sum,
                               const View& y, const View& mean, const View& rstd) {
  const std::int64_t rows = x.rows(), cols = x.cols();
  check_given(x, x.shape, x.dtype, "x");
  check_like(branch, x.shape, x.dtype, "branch");
  check_given(y, x.shape, x.dtype, "y");
  check_given(gain, {cols}, DType::f32, "gain");
  check_like(bias, {cols}, DType::f32, "bias");
  check_like(sum, x.shape, x.dtype, "sum");
  check_like(mean, {rows}, DType::f32, "mean");
  check_like(rstd, {rows}, DType::f32, "rstd");
  WEFT_CHECK(static_cast<bool>(branch) == static_cast<bool>(sum), "branch and sum go together");
}

inline void check_norm_backward(NormKind kind, const View& dy, const View& sum, const View& gain, const View& mean,
                                const View& rstd, const View& dsum, const View& dx, const View& dbranch,
                                const View& dgain, const View& dbias) {
  const std::int64_t rows = sum.rows(), cols = sum.cols();
  check_given(dgain, {cols}, DType::f32, "dgain");
  check_like(dbias, {cols}, DType::f32, "dbias");
  if (rows == 0) return;
  check_given(sum, sum.shape, sum.dtype, "sum");
  check_given(dy, sum.shape, sum.dtype, "dy");
  check_given(gain, {cols}, DType::f32, "gain");
  if (kind == NormKind::layer) check_given(mean, {rows}, DType::f32, "mean");
  check_given(rstd, {rows}, DType::f32, "rstd");
  check_like(dsum, sum.shape, sum.dtype, "dsum");
  check_given(dx, sum.shape, sum.dtype, "dx");
  check_like(dbranch, sum.shape, sum.dtype, "dbranch");
}

/// Whether all positions of `rows` lie in the table, if it is there.
inline void check_positions(const View& positions, const TokenMap& rows, std::int64_t cols) {
  if (!positions) return;
  check_like(positions, {positions.shape[0], cols}, DType::f32, "positions");
  WEFT_CHECK(rows.position(0) >= 0 && rows.position(rows.first_length - 1) < positions.shape[0] &&
                 (rows.first_length >= rows.seq_local ||
                  (rows.begin[1] >= 0 && rows.position(rows.seq_local - 1) < positions.shape[0])),
             "positions to {} in a table of {}", rows.position(rows.seq_local - 1), positions.shape[0]);
}

inline void check_attention_operand(const View& view, const Shape& shape, DType dtype, const char* name) {
  WEFT_CHECK(view.shape == shape && view.dtype == dtype, "{} is {} {}, expected {} {}", name, name_of(view.dtype),
             to_string(view.shape), name_of(dtype), to_string(shape));
  WEFT_CHECK(view || shape.numel() == 0, "{} is missing", name);
  WEFT_CHECK(view.strides[3] == 1 || shape[3] <= 1, "the last dim of {} is not contiguous", name);
}

inline void check_attention_forward(const View& q, const View& k, const View& v, const View& out, const View& lse) {
  WEFT_CHECK(q.shape.rank() == 4 && k.shape.rank() == 4, "q is {}, k is {}", to_string(q.shape), to_string(k.shape));
  const std::int64_t heads = q.shape[2], kv_heads = k.shape[2];
  check_attention_operand(q, q.shape, q.dtype, "q");
  check_attention_operand(k, {q.shape[0], k.shape[1], kv_heads, q.shape[3]}, q.dtype, "k");
  check_attention_operand(v, k.shape, q.dtype, "v");
  WEFT_CHECK(kv_heads > 0 && heads % kv_heads == 0, "{} query heads, {} key-value heads", heads, kv_heads);
  check_attention_operand(out, q.shape, q.dtype, "out");
  check_count(lse, q.shape[0] * heads * q.shape[1], "lse");
}

inline void check_attention_backward(const View& q, const View& k, const View& v, const View& out, const View& lse,
                                     const View& dout, const View& dq, const View& dk, const View& dv) {
  check_attention_forward(q, k, v, out, lse);
  WEFT_CHECK(lse || q.numel() == 0, "lse is missing");
  check_attention_operand(dout, q.shape, q.dtype, "dout");
  check_attention_operand(dq, q.shape, q.dtype, "dq");
  check_attention_operand(dk, k.shape, q.dtype, "dk");
  check_attention_operand(dv, k.shape, q.dtype, "dv");
}

/// Also that r has a row for each distance of a visible pair.
inline void check_relative_positions(const View& q, const View& k, const RelativePositions& positions,
                                     const AttentionSpec& spec) {
  const std::int64_t heads = q.shape[2], dim = q.shape[3], count = positions.r.shape[0];
  const View& r = positions.r;
  WEFT_CHECK(r.shape == Shape({count, heads, dim}) && r.dtype == q.dtype, "r is {} {}, expected {} [L, {}, {}]",
             name_of(r.dtype), to_string(r.shape), name_of(q.dtype), heads, dim);
  WEFT_CHECK(r.strides[2] == 1 || dim <= 1, "the last dim of r is not contiguous");
  WEFT_CHECK(r, "r has no rows");
  WEFT_CHECK(dim <= 256, "relative positions with heads of {}, up to 256 are possible", dim);
  check_given(positions.content_bias, {heads, dim}, DType::f32, "content_bias");
  check_given(positions.place_bias, {heads, dim}, DType::f32, "place_bias");
  if (q.numel() == 0 || k.numel() == 0) return;
  const std::int64_t last = spec.q_begin + q.shape[1] - 1 - spec.k_begin;
  const std::int64_t least = spec.q_begin - (spec.k_begin + k.shape[1] - 1);
  const std::int64_t first = spec.causal ? std::max<std::int64_t>(0, least) : least;
  WEFT_CHECK(last < first || (positions.first <= first && last < positions.first + count),
             "distances {} to {} in r of {} to {}", first, last, positions.first, positions.first + count - 1);
}

inline void check_relative_gradients(const RelativePositions& positions, const RelativeGradients& gradients) {
  const Shape& shape = positions.r.shape;
  WEFT_CHECK(gradients.r.shape == shape && gradients.r.dtype == positions.r.dtype && gradients.r.strides[2] == 1,
             "dr is {}, expected {}", to_string(gradients.r.shape), to_string(shape));
  check_given(gradients.content_bias, {shape[1], shape[2]}, DType::f32, "dcontent_bias");
  check_given(gradients.place_bias, {shape[1], shape[2]}, DType::f32, "dplace_bias");
}

/// Sizes of a recurrence.
struct RecurrentSizes {
  std::int64_t batch, steps, hidden, gates;
  std::int64_t gate_width() const { return gates * hidden; }
};

inline RecurrentSizes recurrent_sizes(RecurrentCell cell, const View& y) {
  WEFT_CHECK(y.shape.rank() == 3 && y.shape[1] > 0, "y is {}, expected [B, T, H] of one step or more",
             to_string(y.shape));
  return {y.shape[0], y.shape[1], y.shape[2], gates_of(cell)};
}

/// `all`: the units that R multiplies, of which the job may have a part.
inline RecurrentSizes check_recurrent(const RecurrentForward& job, std::int64_t all) {
  const RecurrentSizes s = recurrent_sizes(job.cell, job.y);
  const DType dtype = job.y.dtype;
  const Shape gates{s.batch, s.steps, s.gate_width()}, state{s.batch, s.hidden};
  const bool lstm = job.cell == RecurrentCell::lstm, gru = job.cell == RecurrentCell::gru;
  check_given(job.y, job.y.shape, dtype, "y");
  check_given(job.projected, gates, dtype, "projected");
  check_given(job.weight.value, {s.gate_width(), all}, DType::f32, "the recurrent weight");
  check_count(job.hidden_bias, s.hidden, "hidden_bias");
  check_like(job.gates, gates, dtype, "gates");
  check_given(job.h_last, state, DType::f32, "h_last");
  check_like(job.h_first, state, DType::f32, "h_first");
  check_like(job.c_first, state, DType::f32, "c_first");
  if (lstm) check_given(job.c_last, state, DType::f32, "c_last");
  if (lstm && job.gates) check_given(job.cells, job.y.shape, DType::f32, "cells");
  if (gru && job.gates) check_given(job.candidate, job.y.shape, dtype, "candidate");
  return s;
}

inline RecurrentSizes check_recurrent(const RecurrentBackward& job, std::int64_t all) {
  const RecurrentSizes s = recurrent_sizes(job.cell, job.dy);
  const DType dtype = job.dy.dtype;
  const Shape gates{s.batch, s.steps, s.gate_width()}, units = job.dy.shape, state{s.batch, s.hidden};
  const bool lstm = job.cell == RecurrentCell::lstm, gru = job.cell == RecurrentCell::gru;
  check_given(job.dy, units, dtype, "dy");
  check_given(job.gates, gates, dtype, "gates");
  check_given(job.dgates, gates, dtype, "dgates");
  check_given(job.weight.value, {s.gate_width(), all}, DType::f32, "the recurrent weight");
  if (lstm) check_given(job.cells, units, DType::f32, "cells");
  if (gru) check_given(job.candidate, units, dtype, "candidate");
  if (gru) check_given(job.y, units, dtype, "y");
  if (gru) check_given(job.dhidden, gates, dtype, "dhidden");
  for (const auto& [view, name] : {std::pair{job.h_first, "h_first"},
                                   {job.c_first, "c_first"},
                                   {job.dh_last, "dh_last"},
                                   {job.dc_last, "dc_last"},
                                   {View(job.dh_first), "dh_first"},
                                   {View(job.dc_first), "dc_first"}})
    check_like(view, state, DType::f32, name);
  return s;
}

inline RecurrentSizes check_recurrent(const RecurrentForward& job) { return check_recurrent(job, job.y.shape[-1]); }
inline RecurrentSizes check_recurrent(const RecurrentBackward& job) { return check_recurrent(job, job.dy.shape[-1]); }

/// Of one step.
inline RecurrentSizes check_recurrent_step(const RecurrentForward& job, std::int64_t step, const View& before) {
  WEFT_CHECK(before.shape.rank() == 3, "before is {}", to_string(before.shape));
  const RecurrentSizes s = check_recurrent(job, before.shape[2]);
  WEFT_CHECK(0 <= step && step < s.steps, "step {} of {}", step, s.steps);
  check_given(before, {s.batch, s.steps, before.shape[2]}, job.y.dtype, "before");
  return s;
}

inline RecurrentSizes check_recurrent_step(const RecurrentBackward& job, std::int64_t step, const View& dh,
                                           const View& carry, const View& dh_before) {
  const std::int64_t all = job.weight.value.shape[-1];
  const RecurrentSizes s = check_recurrent(job, all);
  WEFT_CHECK(0 <= step && step < s.steps, "step {} of {}", step, s.steps);
  check_like(dh, {s.batch, s.hidden}, DType::f32, "dh");
  if (job.cell != RecurrentCell::elman) check_given(carry, {s.batch, s.hidden}, DType::f32, "carry");
  check_like(dh_before, {s.batch, all}, DType::f32, "dh_before");
  return s;
}

inline void check_attention_merge(const View& part, const View& part_lse, const View& out, const View& lse) {
  WEFT_CHECK(part.shape.rank() == 4 && part.contiguous(), "part is {}", to_string(part.shape));
  const Shape rows{part.shape[0], part.shape[2], part.shape[1]};
  check_count(part_lse, rows.numel(), "part_lse");
  check_attention_operand(out, part.shape, DType::f32, "out");
  WEFT_CHECK(lse.shape == rows && lse.dtype == DType::f32, "lse is {} {}, expected f32 {}", name_of(lse.dtype),
             to_string(lse.shape), to_string(rows));
}

/// Flat f32 storage of equal size; `first` and `second` are the optimizer's, as far as it has them.
inline void check_optim(const View& grad, const View& value, const View& first, const View& second) {
  check_given(grad, grad.shape, DType::f32, "grad");
  for (const auto& [view, name] : {std::pair{value, "value"}, {first, "m"}, {second, "v"}}) {
    WEFT_CHECK(!view || view.numel() == grad.numel(), "{} has {} elements, grad {}", name, view.numel(), grad.numel());
    WEFT_CHECK(!view || (view.contiguous() && view.dtype == DType::f32), "{} is not contiguous f32", name);
  }
}

}  // namespace weft
