// Multi-head attention; see core/kernels/attention.hpp. Here stands the choice of who computes.
#include "core/cuda/fused_attention.hpp"
#include "core/cuda/kernels/attention_problem.hpp"
#include "core/cuda/kernels/bind.hpp"
#include "core/kernels/check.hpp"

namespace weft::cuda {
namespace {

void forward(ExecContext& exec, View q, View k, View v, AttentionSpec spec, MutView out, MutView lse) {
  check_attention_forward(q, k, v, out, lse);
  if (q.numel() == 0 || fused_attention(exec, AttentionForward{q, k, v, spec, out, lse})) return;
  attention::forward_on_cores(exec, q, k, v, spec, out, lse, nullptr);
}

void backward(ExecContext& exec, View q, View k, View v, View out, View lse, View dout, AttentionSpec spec, MutView dq,
              MutView dk, MutView dv) {
  check_attention_backward(q, k, v, out, lse, dout, dq, dk, dv);
  if (q.numel() == 0 && k.numel() == 0) return;
  if (q.numel() != 0 && fused_attention(exec, AttentionBackward{q, k, v, out, lse, dout, spec, dq, dk, dv})) return;
  attention::backward_on_cores(exec, q, k, v, out, lse, dout, spec, dq, dk, dv, nullptr, nullptr);
}

void relative_forward(ExecContext& exec, View q, View k, View v, RelativePositions positions, AttentionSpec spec,
                      MutView out, MutView lse) {
  check_attention_forward(q, k, v, out, lse);
  check_relative_positions(q, k, positions, spec);
  if (q.numel() > 0) attention::forward_on_cores(exec, q, k, v, spec, out, lse, &positions);
}

void relative_backward(ExecContext& exec, View q, View k, View v, RelativePositions positions, View out, View lse,
                       View dout, AttentionSpec spec, MutView dq, MutView dk, MutView dv, RelativeGradients gradients) {
  check_attention_backward(q, k, v, out, lse, dout, dq, dk, dv);
  check_relative_positions(q, k, positions, spec);
  check_relative_gradients(positions, gradients);
  attention::backward_on_cores(exec, q, k, v, out, lse, dout, spec, dq, dk, dv, &positions, &gradients);
}

}  // namespace

void bind_attention(KernelTable& table) {
  table.attention.forward.bind(forward);
  table.attention.backward.bind(backward);
  table.attention.relative_forward.bind(relative_forward);
  table.attention.relative_backward.bind(relative_backward);
}

}  // namespace weft::cuda
