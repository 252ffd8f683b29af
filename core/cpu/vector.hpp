// Between the slots and the vector kernels of vec/: checks, plain arguments, threads. Compiled for the baseline.
#pragma once
#include <cmath>

#include "core/cpu/backend.hpp"
#include "core/cpu/vec/kernels.hpp"

namespace weft::cpu {

/// Calls body.template operator()<kernels>() with the vector kernels of `isa` as a constant.
template <class Body>
void for_isa(Isa isa, Body&& body) {
  switch (isa) {
    case Isa::portable: return body.template operator()<portable::kernels>();
    case Isa::v3: return body.template operator()<v3::kernels>();
    case Isa::v4: return body.template operator()<v4::kernels>();
  }
}

void bind_norm(KernelTable& table, Isa isa);
void bind_dropout(KernelTable& table, Isa isa);
void bind_elementwise(KernelTable& table, Isa isa);
void bind_embedding(KernelTable& table, Isa isa);
void bind_attention(KernelTable& table, Isa isa);
void bind_optim(KernelTable& table, Isa isa);

inline Elem elem_of(const View& view) {
  WEFT_CHECK(view.dtype == DType::f32 || view.dtype == DType::bf16, "expected f32 or bf16, found {}",
             name_of(view.dtype));
  return view.dtype == DType::f32 ? Elem::f32 : Elem::bf16;
}

inline void set_rows(DropoutArgs& args, const TokenMap& rows) {
  args.first_sequence = rows.first_sequence;
  args.seq_global = rows.seq_global;
  args.seq_local = rows.seq_local;
  args.begin[0] = rows.begin[0];
  args.begin[1] = rows.begin[1];
  args.first_length = rows.first_length;
}

inline DropoutArgs dropout_args(const DropoutSpec& spec) {
  DropoutArgs args;
  if (!(spec.p > 0)) return args;
  WEFT_CHECK(spec.p < 1 && spec.key, "dropout p = {}", spec.p);
  args.active = true;
  args.rule.factor = 1.0f / (1.0f - spec.p);
  args.rule.threshold = static_cast<std::uint32_t>(std::ceil(static_cast<double>(spec.p) * 0x1p24)) << 8;
  PhiloxKey key = *spec.key;
  for (int round = 0; round < 10; ++round) {
    args.rule.round_keys[2 * round] = key[0];
    args.rule.round_keys[2 * round + 1] = key[1];
    key[0] += 0x9E3779B9u;
    key[1] += 0xBB67AE85u;
  }
  set_rows(args, spec.rows);
  args.cols_global = spec.cols_global;
  args.col_begin = spec.col_begin;
  return args;
}

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

}  // namespace weft::cpu
