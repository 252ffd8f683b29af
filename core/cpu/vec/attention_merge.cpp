// Attention over two sets of keys from the attention over each; see core/kernels/attention.hpp.
#include "core/cpu/vec/functions.hpp"
#include "core/cpu/vec/simd.hpp"

namespace weft::cpu::WEFT_ISA {
namespace {

template <class T>
void merge_rows(const AttentionMergeArgs& a, std::int64_t begin, std::int64_t end) {
  for (std::int64_t row = begin; row < end; ++row) {
    const std::int64_t head = row % a.heads, token = row / a.heads % a.tokens, batch = row / a.heads / a.tokens;
    const float part_lse = a.part_lse[(batch * a.heads + head) * a.tokens + token];
    if (part_lse == -__builtin_inff()) continue;
    float& lse = a.lse[batch * a.lse_strides[0] + head * a.lse_strides[1] + token * a.lse_strides[2]];
    const double before = lse, added = part_lse, top = before > added ? before : added;
    const double total = top + __builtin_log(__builtin_exp(before - top) + __builtin_exp(added - top));
    const Vec keep = splat(static_cast<float>(__builtin_exp(before - total)));
    const Vec take = splat(static_cast<float>(__builtin_exp(added - total)));
    float* out = a.out + batch * a.out_strides[0] + token * a.out_strides[1] + head * a.out_strides[2];
    const T* part = static_cast<const T*>(a.part) + row * a.head_dim;
    for_vectors(0, a.head_dim, [&](std::int64_t i, auto n) {
      store_n(out + i, n, fma(load_n(out + i, n), keep, load_n(part + i, n) * take));
    });
    lse = static_cast<float>(total);
  }
}

}  // namespace

void attention_merge(const AttentionMergeArgs& args, std::int64_t row_begin, std::int64_t row_end) {
  args.elem == Elem::f32 ? merge_rows<float>(args, row_begin, row_end) : merge_rows<Half>(args, row_begin, row_end);
}

}  // namespace weft::cpu::WEFT_ISA
