// Checks of the scan kernels' arguments that backends share.
#pragma once
#include "core/kernels/check.hpp"
#include "core/kernels/scan.hpp"

namespace weft {

/// B, T, D of a call; `h` is h or dh, or gives the shape where there is neither.
inline ScanShape scan_shape(const ScanSpec& spec, const ScanOperands& in) {
  const int gates = traits_of(spec.cell).gates;
  WEFT_CHECK(in.u.shape.rank() == 3 && in.u.shape[2] % gates == 0, "u is {} for {} gates", to_string(in.u.shape),
             gates);
  return {in.u.shape[0], in.u.shape[1], in.u.shape[2] / gates};
}

/// A view [B, T, cols] whose columns are neighbours and whose sequences follow one another.
inline void check_scan_steps(const View& view, ScanShape shape, std::int64_t cols, DType dtype, const char* name) {
  WEFT_CHECK(view, "{} is missing", name);
  WEFT_CHECK(view.shape == Shape({shape.batch, shape.steps, cols}) && view.dtype == dtype,
             "{} is {} {}, expected {} {}", name, name_of(view.dtype), to_string(view.shape), name_of(dtype),
             to_string(Shape{shape.batch, shape.steps, cols}));
  WEFT_CHECK(cols <= 1 || view.strides[2] == 1, "the columns of {} are not neighbours", name);
}

inline void check_scan_operands(const ScanSpec& spec, const ScanOperands& in, ScanShape shape) {
  const std::int64_t d = shape.channels;
  const bool sru = spec.cell == ScanCell::sru || spec.cell == ScanCell::sru_affine;
  check_scan_steps(in.u, shape, traits_of(spec.cell).gates * d, in.u.dtype, "u");
  if (in.skip) check_scan_steps(in.skip, shape, d, in.u.dtype, "skip");
  WEFT_CHECK(sru || (!in.skip && !in.mask && !in.b_f && !in.b_r), "a skip, mask or bias for a cell that has none");
  for (const auto& [view, name] : {std::pair{in.b_f, "b_f"}, {in.b_r, "b_r"}})
    if (sru) check_given(view, {d}, DType::f32, name);
  for (const auto& [view, name] : {std::pair{in.v_f, "v_f"}, {in.v_r, "v_r"}}) {
    WEFT_CHECK(spec.cell == ScanCell::sru || !view, "{} for a cell that has none", name);
    if (spec.cell == ScanCell::sru) check_given(view, {d}, DType::f32, name);
  }
  check_like(in.mask, {shape.batch, d}, DType::f32, "mask");
  for (const std::int64_t span : {spec.forward_span, spec.backward_span})
    WEFT_CHECK(span >= 0 && span % scan_chunk == 0, "a span of {}", span);
  WEFT_CHECK(spec.forward_span == 0 || spec.forward_span >= shape.steps || traits_of(spec.cell).affine,
             "only affine cells have parallel pieces");
}

inline void check_scan_forward(const ScanSpec& spec, const ScanOperands& in, ScanShape shape, const View& initial,
                               const View& h, const View& states, const View& final) {
  check_scan_operands(spec, in, shape);
  const Shape state{shape.batch, shape.channels};
  check_like(initial, state, DType::f32, "initial");
  check_given(h, {shape.batch, shape.steps, shape.channels}, in.u.dtype, "h");
  check_like(states, {shape.batch, scan_chunks(shape.steps), shape.channels}, DType::f32, "states");
  check_given(final, state, DType::f32, "final");
}

inline void check_scan_gradients(const ScanSpec& spec, const ScanOperands& in, ScanShape shape, const View& states,
                                 const View& dh) {
  check_scan_operands(spec, in, shape);
  check_given(states, {shape.batch, scan_chunks(shape.steps), shape.channels}, DType::f32, "states");
  check_given(dh, {shape.batch, shape.steps, shape.channels}, in.u.dtype, "dh");
}

inline void check_scan_backward(const ScanSpec& spec, const ScanOperands& in, ScanShape shape, const View& states,
                                const View& dh, const View& dfinal, const ScanGradients& out) {
  check_scan_gradients(spec, in, shape, states, dh);
  const Shape state{shape.batch, shape.channels}, channels{shape.channels};
  check_like(dfinal, state, DType::f32, "dfinal");
  check_scan_steps(out.du, shape, in.u.shape[2], in.u.dtype, "du");
  if (in.skip) check_scan_steps(out.dskip, shape, shape.channels, in.u.dtype, "dskip");
  for (const auto& [view, given, name] : {std::tuple{out.dv_f, in.v_f, "dv_f"},
                                          {out.dv_r, in.v_r, "dv_r"},
                                          {out.db_f, in.b_f, "db_f"},
                                          {out.db_r, in.b_r, "db_r"}})
    if (given) check_given(view, channels, DType::f32, name);
  check_like(out.initial, state, DType::f32, "the gradient of initial");
}

inline void check_scan_carry(const View& maps, std::int64_t from, std::int64_t to, const View& state) {
  WEFT_CHECK(maps.shape.rank() == 3 && maps.shape[1] == 2, "maps are {}", to_string(maps.shape));
  check_given(maps, maps.shape, DType::f32, "maps");
  check_given(state, {maps.shape[2]}, DType::f32, "state");
  const std::int64_t parts = maps.shape[0];
  WEFT_CHECK(0 <= from && from < parts && 0 <= to && to < parts, "parts from {} to {} of {}", from, to, parts);
}

/// A summary's outputs.
inline void check_scan_summary(ScanShape shape, const View& product, const View& sum) {
  check_given(product, {shape.batch, shape.channels}, DType::f32, "product");
  check_given(sum, {shape.batch, shape.channels}, DType::f32, "sum");
}

}  // namespace weft
