#include "core/cuda/fused_attention_rule.hpp"

#include <algorithm>

namespace weft::cuda {

namespace {

constexpr std::int64_t round_up(std::int64_t value, std::int64_t step) { return (value + step - 1) / step * step; }
constexpr std::int64_t ceil_div(std::int64_t value, std::int64_t by) { return (value + by - 1) / by; }

bool is_aligned(const View& view) {
  auto bits = reinterpret_cast<std::uintptr_t>(view.data);
  for (int dim = 0; dim + 1 < view.shape.rank(); ++dim)
    bits |= static_cast<std::uintptr_t>(view.strides[dim]) * size_of(view.dtype);
  return bits % 16 == 0;
}

// A causal mask that hides nothing is none: a later block of queries against earlier keys, or one query that decodes.
AttentionMask mask_of(const AttentionSpec& spec, std::int64_t q_len, std::int64_t k_len) {
  if (!spec.causal || spec.q_begin >= spec.k_begin + k_len - 1) return AttentionMask::none;
  return spec.q_begin == spec.k_begin && q_len == k_len ? AttentionMask::causal : AttentionMask::other;
}

template <class Call>
AttentionCall describe_call(const Call& call, std::initializer_list<View> operands) {
  const Shape &q = call.q.shape, &k = call.k.shape;
  AttentionCall made;
  made.dtype = call.q.dtype;
  made.batch = q[0];
  made.q_len = q[1];
  made.k_len = k[1];
  made.heads = q[2];
  made.kv_heads = k[2];
  made.head_dim = q[3];
  made.mask = mask_of(call.spec, q[1], k[1]);
  made.dropout = call.spec.dropout.p > 0;
  // lse is contiguous, so only its address counts.
  made.aligned = std::ranges::all_of(operands, is_aligned) && reinterpret_cast<std::uintptr_t>(call.lse.data) % 16 == 0;
  return made;
}

/// Steps of at most `most` that divide `count` as evenly as can be.
std::int64_t even_step(std::int64_t count, std::int64_t most) {
  return ceil_div(count, ceil_div(count, std::clamp<std::int64_t>(most, 1, count)));
}

}  // namespace

// Tiles of 64 queries and 128 keys are stored whole.
std::int64_t score_bytes(const AttentionCall& call) {
  return 2 * call.group() * round_up(call.q_len, 64) * round_up(call.k_len, 128);
}

AttentionCall describe(const AttentionForward& call) { return describe_call(call, {call.q, call.k, call.v, call.out}); }

AttentionCall describe(const AttentionBackward& call) {
  return describe_call(call, {call.q, call.k, call.v, call.out, call.dout, call.dq, call.dk, call.dv});
}

bool fuses_forward(const AttentionCall& call, const FusedDevice& device) {
  if (device.capability < 80 || device.version < oldest_cudnn) return false;
  if (call.dtype != DType::bf16 || call.dropout || !call.aligned || call.mask == AttentionMask::other) return false;
  if (call.head_dim % 8 != 0 || call.head_dim > 128 || call.batch < 1 || call.k_len < 1) return false;
  // Fewer queries do not fill a tile; and while tokens are decoded every step has another length, each with a plan to
  // build.
  return call.q_len >= 64;
}

bool needs_ordered_engine(const FusedDevice& device) { return device.capability / 10 == 10; }

bool fuses_backward(const AttentionCall& call, const FusedDevice& device, std::int64_t most_bytes) {
  if (!fuses_forward(call, device)) return false;
  if (needs_ordered_engine(device) && (device.capability > 103 || device.version < 91800)) return false;
  // Up to 9.15 keys beyond the last whole tile needed a mask of their own.
  if (device.version < 91600 && call.k_len % 128 != 0) return false;
  if (score_bytes(call) > most_head_score_bytes) return false;
  // Each piece's part of lse is aligned too.
  const AttentionPiece piece = backward_piece(call, most_bytes);
  return piece.batch * piece.kv_heads == call.batch * call.kv_heads ||
         piece.batch * piece.kv_heads * call.group() * call.q_len % 4 == 0;
}

AttentionPiece backward_piece(const AttentionCall& call, std::int64_t most_bytes) {
  const std::int64_t head = score_bytes(call), sequence = call.kv_heads * head;
  if (sequence <= most_bytes) return {even_step(call.batch, most_bytes / sequence), call.kv_heads};
  return {1, even_step(call.kv_heads, most_bytes / head)};
}

}  // namespace weft::cuda
