// Multi-head attention; see core/kernels/attention.hpp. Here stand the checks and the choice of who computes.
#include "core/cuda/kernels/attention_problem.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/kernels/check.hpp"

namespace weft::cuda {
namespace {

void check_operand(const View& view, const Shape& shape, DType dtype, const char* name) {
  WEFT_CHECK(view.shape == shape && view.dtype == dtype, "{} is {} {}, expected {} {}", name, name_of(view.dtype),
             to_string(view.shape), name_of(dtype), to_string(shape));
  WEFT_CHECK(view || shape.numel() == 0, "{} is missing", name);
  WEFT_CHECK(view.strides[3] == 1 || shape[3] <= 1, "the last dim of {} is not contiguous", name);
}

void check_inputs(const View& q, const View& k, const View& v) {
  WEFT_CHECK(q.shape.rank() == 4 && k.shape.rank() == 4, "q is {}, k is {}", to_string(q.shape), to_string(k.shape));
  const std::int64_t heads = q.shape[2], kv_heads = k.shape[2];
  check_operand(q, q.shape, q.dtype, "q");
  check_operand(k, {q.shape[0], k.shape[1], kv_heads, q.shape[3]}, q.dtype, "k");
  check_operand(v, k.shape, q.dtype, "v");
  WEFT_CHECK(kv_heads > 0 && heads % kv_heads == 0, "{} query heads, {} key-value heads", heads, kv_heads);
}

// A faster path for some calls is asked first in these two: `if (suits(q, k, spec)) return …`.
void forward(ExecContext& exec, View q, View k, View v, AttentionSpec spec, MutView out, MutView lse) {
  check_inputs(q, k, v);
  check_operand(out, q.shape, q.dtype, "out");
  check_count(lse, q.shape[0] * q.shape[2] * q.shape[1], "lse");
  if (q.numel() == 0) return;
  attention::forward_on_cores(exec, q, k, v, spec, out, lse);
}

void backward(ExecContext& exec, View q, View k, View v, View out, View lse, View dout, AttentionSpec spec, MutView dq,
              MutView dk, MutView dv) {
  check_inputs(q, k, v);
  check_operand(out, q.shape, q.dtype, "out");
  check_operand(dout, q.shape, q.dtype, "dout");
  check_operand(dq, q.shape, q.dtype, "dq");
  check_operand(dk, k.shape, q.dtype, "dk");
  check_operand(dv, k.shape, q.dtype, "dv");
  WEFT_CHECK(lse || q.numel() == 0, "lse is missing");
  check_count(lse, q.shape[0] * q.shape[2] * q.shape[1], "lse");
  if (q.numel() == 0 && k.numel() == 0) return;
  attention::backward_on_cores(exec, q, k, v, out, lse, dout, spec, dq, dk, dv);
}

}  // namespace

void bind_attention(KernelTable& table) {
  table.attention.forward.bind(forward);
  table.attention.backward.bind(backward);
}

}  // namespace weft::cuda
