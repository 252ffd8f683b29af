// Between the slots and the vector kernels of vec/: checks, plain arguments, threads. Compiled for the baseline.
#pragma once
#include <cmath>

#include "core/cpu/backend.hpp"
#include "core/cpu/vec/kernels.hpp"
#include "core/kernels/check.hpp"

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
void bind_channels(KernelTable& table, Isa isa);
void bind_embedding(KernelTable& table, Isa isa);
void bind_attention(KernelTable& table, Isa isa);
void bind_optim(KernelTable& table, Isa isa);
void bind_scan(KernelTable& table, Isa isa);
void bind_recurrent(KernelTable& table, Isa isa);
void bind_transfer(KernelTable& table);

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
  args.share_begin = rows.share.begin;
  args.share_run = rows.share.run;
  args.share_stride = rows.share.stride;
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

}  // namespace weft::cpu
