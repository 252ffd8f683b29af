// The vector kernels of one instruction set as plain functions over plain arguments. Everything in vec/ is compiled
// once for each instruction set, so it must not emit an inline function of any shared namespace (the linker would keep
// one copy, perhaps the AVX-512 one, for all): it includes nothing of Weft's but this page, which holds data alone;
// checks, threads and views stay in the files above it.
//
// Kernels are serial and take a half-open range of the rows or elements that they work on.
#pragma once
#include <cstddef>

#include "core/cpu/vec/elem.hpp"
#include "core/cpu/vec/scan_args.hpp"

namespace weft::cpu {

/// How words become factors: 1/(1−p) from `threshold` on, else 0, which is what uniform(word) >= p says; and Philox's
/// round keys, the two of each round side by side.
struct DropoutRule {
  float factor = 1;
  std::uint32_t threshold = 0;
  std::uint64_t round_keys[20] = {};
};

/// weft::DropoutSpec with its key read. See TokenMap for the row fields.
struct DropoutArgs {
  bool active = false;
  DropoutRule rule;
  std::int64_t first_sequence = 0, seq_global = 1, seq_local = 1, begin[2] = {0, 0}, first_length = 1;
  std::int64_t share_begin = 0, share_run = 0, share_stride = 0;
  std::int64_t cols_global = 0, col_begin = 0;
};

struct NormForwardArgs {
  bool rms;
  Elem elem;
  std::int64_t cols;
  const void* x;
  const void* branch;  ///< null: none
  DropoutArgs dropout;
  const float* gain;
  const float* bias;  ///< null: none
  float eps;
  void* sum;  ///< null without a branch
  void* y;
  float* mean;  ///< may be null
  float* rstd;  ///< may be null
};

struct NormBackwardArgs {
  bool rms;
  Elem elem;
  std::int64_t cols;
  const void* dy;
  const void* sum;
  const float* gain;
  const float* mean;  ///< null for RMS
  const float* rstd;
  const void* dsum;  ///< may be null
  DropoutArgs dropout;
  void* dx;
  void* dbranch;  ///< may be null
};

struct EmbeddingForwardArgs {
  Elem elem;
  std::int64_t cols;
  const std::int32_t* tokens;
  std::int64_t vocab_begin, vocab_end;  ///< tokens in the table; others are zeros
  const float* token_table;
  const float* position_table;  ///< may be null
  DropoutArgs dropout;          ///< its row fields are set even without dropout
  void* y;
};

struct EmbeddingBackwardArgs {
  Elem elem;
  std::int64_t rows, cols;
  const void* dy;
  const std::int32_t* tokens;
  std::int64_t vocab_begin, vocab_end;
  DropoutArgs dropout;
  float* dtokens;
  float* dpositions;  ///< may be null
};

struct RotaryArgs {
  Elem elem;
  std::int64_t batch, heads, head_dim;
  const void* x;
  void* y;
  std::int64_t x_strides[3], y_strides[3];  ///< of batch, token and head, in elements
  DropoutArgs rows;                         ///< only its row fields are read
  const double* frequency;                  ///< head_dim / 2, the angle of position 1
  double direction;                         ///< 1, or −1 for the inverse
};

/// The gate of each channel, σ(a)·φ(b); see core/kernels/channels.hpp.
struct ChannelGateArgs {
  bool tanh;  ///< φ; else the sigmoid
  std::int64_t cols;
  const float *a, *b;
};

struct AdamArgs {
  const float* grad;
  float *value, *m, *v;
  float beta1, rest1, beta2, rest2, eps;  ///< rest = 1 − beta, rounded once
  float grad_scale;                       ///< gradients are multiplied by it
  float decay;                            ///< what the value is multiplied by
  float step_size;                        ///< value −= step_size·m / (√v·v_scale + eps)
  float v_scale;
};

struct SgdArgs {
  const float* grad;
  float *value, *momentum_buffer;  ///< the buffer is null without momentum
  float momentum, weight_decay, lr, grad_scale;
  bool nesterov;
};

/// One attention call; strides of batch, token and head in elements, the last dim contiguous.
struct AttentionArgs {
  Elem elem;
  std::int64_t batch, heads, kv_heads, head_dim, q_len, k_len;
  bool causal;
  float scale;
  std::int64_t q_begin, k_begin;
  bool dropout;
  DropoutRule dropout_rule;
  std::int64_t first_sequence, head_begin, heads_global, seq_global;
  const void *q, *k, *v, *out, *dout;  ///< forward writes through `out_mut`
  std::int64_t q_strides[3], k_strides[3], v_strides[3], out_strides[3], dout_strides[3];
  void *out_mut, *dq, *dk, *dv;
  std::int64_t dq_strides[3], dk_strides[3], dv_strides[3];
  const float* lse;  ///< [batch, heads, q_len]
  float* lse_mut;    ///< may be null

  /// Relative positions, if r is there: rows of distance r_first and on; strides of distance and head.
  const void* r;
  void* dr;
  std::int64_t r_strides[2], dr_strides[2], r_first, r_len;
  const float *content_bias, *place_bias;  ///< [heads, head_dim]
};

/// AttentionKernels::merge; strides of batch, token and head of `out`, of batch, head and token of `lse`.
struct AttentionMergeArgs {
  Elem elem;
  std::int64_t tokens, heads, head_dim;
  const void* part;  ///< contiguous
  const float* part_lse;
  float* out;
  float* lse;
  std::int64_t out_strides[3], lse_strides[3];
};

/// A share of one attention call: what of (batch, key-value head) `pair` part `part` of `parts` does.
struct AttentionTask {
  std::int64_t pair, part, parts;
  void* scratch;      ///< of this thread, 64-byte aligned
  /// Backward: zero-filled by the task; [group, q_len rounded, head_dim rounded], with relative positions twice: by k, by r.
  float* dq_partial;
  float* dr_partial;  ///< with relative positions: added to by the task
};

struct VecKernels {
  void (*norm_forward)(const NormForwardArgs&, std::int64_t row_begin, std::int64_t row_end);
  /// Adds this range's share to dgain[cols] and dbias[cols] (dbias may be null).
  void (*norm_backward)(const NormBackwardArgs&, std::int64_t row_begin, std::int64_t row_end, float* dgain,
                        float* dbias);

  void (*dropout)(Elem, std::int64_t cols, const void* x, const DropoutArgs&, void* y, std::int64_t row_begin,
                  std::int64_t row_end);

  void (*gelu)(Elem, const void* x, void* y, std::int64_t begin, std::int64_t end);
  void (*gelu_backward)(Elem, const void* x, const void* dy, void* dx, std::int64_t begin, std::int64_t end);
  void (*swiglu)(Elem, std::int64_t cols, const void* gate_up, void* y, std::int64_t row_begin, std::int64_t row_end);
  void (*swiglu_backward)(Elem, std::int64_t cols, const void* gate_up, const void* dy, void* dgate_up,
                          std::int64_t row_begin, std::int64_t row_end);
  void (*add)(Elem, const void* a, const void* b, void* y, std::int64_t begin, std::int64_t end);
  void (*scaled_add)(Elem, const void* x, const void* a, float alpha, void* y, std::int64_t begin, std::int64_t end);
  /// da = alpha·dy; returns Σ a·dy.
  double (*scaled_add_backward)(Elem, const void* a, float alpha, const void* dy, void* da, std::int64_t begin,
                                std::int64_t end);
  void (*convert)(Elem from, const void* x, Elem to, void* y, std::int64_t count);
  /// y += x.
  void (*accumulate)(Elem from, const void* x, float* y, std::int64_t count);
  void (*fill)(Elem, float value, void* y, std::int64_t begin, std::int64_t end);
  void (*scale)(Elem, float factor, void* y, std::int64_t begin, std::int64_t end);
  /// Σ a·b, or Σ a if b is null.
  double (*dot)(const float* a, const float* b, std::int64_t begin, std::int64_t end);
  /// y[c] = (add ? y[c] : 0) + Σ_r parts[r·stride + c], r in order.
  void (*sum_rows)(const float* parts, std::int64_t rows, std::int64_t stride, bool add, float* y, std::int64_t begin,
                   std::int64_t end);

  void (*channel_gates)(const ChannelGateArgs&, float* gate);
  /// da and db from dgate.
  void (*channel_gate_slopes)(const ChannelGateArgs&, const float* dgate, float* da, float* db);
  void (*scale_channels)(Elem, std::int64_t cols, const void* x, const float* gate, void* y, std::int64_t row_begin,
                         std::int64_t row_end);
  /// dx = gate·dy; adds this range's Σ x·dy to dgate[cols].
  void (*scale_channels_backward)(Elem, std::int64_t cols, const void* x, const float* gate, const void* dy, void* dx,
                                  std::int64_t row_begin, std::int64_t row_end, float* dgate);
  void (*boom)(Elem, std::int64_t chunks, std::int64_t cols, const void* x, void* y, std::int64_t row_begin,
               std::int64_t row_end);
  void (*boom_backward)(Elem, std::int64_t chunks, std::int64_t cols, const void* x, const void* dy, void* dx,
                        std::int64_t row_begin, std::int64_t row_end);

  void (*embedding_forward)(const EmbeddingForwardArgs&, std::int64_t row_begin, std::int64_t row_end);
  void (*embedding_backward)(const EmbeddingBackwardArgs&, std::int64_t col_begin, std::int64_t col_end);
  /// `turn` is this thread's scratch, head_dim floats.
  void (*rotary)(const RotaryArgs&, std::int64_t token_begin, std::int64_t token_end, float* turn);

  std::size_t (*attention_forward_scratch)(const AttentionArgs&);
  void (*attention_forward)(const AttentionArgs&, const AttentionTask&);
  std::size_t (*attention_backward_scratch)(const AttentionArgs&);
  /// Floats of one task's dq_partial.
  std::int64_t (*attention_dq_partial)(const AttentionArgs&);
  void (*attention_backward)(const AttentionArgs&, const AttentionTask&);
  /// dq of one pair = scale · the sum of its parts' partials. dbias[group][2][head_dim rounded up to 16], if it is there, gets
  /// the pair's sums of dq by k and by r.
  void (*attention_dq)(const AttentionArgs&, std::int64_t pair, const float* partials, std::int64_t parts,
                       float* dbias);
  /// Floats of one task's dr_partial, and one group's head of it.
  std::int64_t (*attention_dr_partial)(const AttentionArgs&);
  /// dr of one head = scale · the sum of `count` partials, `stride` floats apart, at that head.
  void (*attention_dr)(const AttentionArgs&, std::int64_t head, const float* partials, std::int64_t stride,
                       std::int64_t count);

  void (*scan_forward)(const ScanArgs&, const ScanTask&);
  void (*scan_summary)(const ScanArgs&, const ScanTask&);
  void (*scan_backward)(const ScanArgs&, const ScanTask&);
  void (*scan_backward_summary)(const ScanArgs&, const ScanTask&);
  /// Rows [row_begin, row_end) of batch × tokens × heads.
  void (*attention_merge)(const AttentionMergeArgs&, std::int64_t row_begin, std::int64_t row_end);

  void (*adam)(const AdamArgs&, std::int64_t begin, std::int64_t end);
  void (*sgd)(const SgdArgs&, std::int64_t begin, std::int64_t end);
};

namespace portable {
extern const VecKernels kernels;
}
namespace v3 {
extern const VecKernels kernels;
}
namespace v4 {
extern const VecKernels kernels;
}

}  // namespace weft::cpu
