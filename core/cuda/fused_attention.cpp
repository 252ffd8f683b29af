// fused_attention.hpp by what the context's state has.
#include "core/cuda/fused_attention.hpp"

#include "core/cuda/state.hpp"

namespace weft::cuda {

bool fused_attention(ExecContext& exec, const AttentionForward& call) {
  FusedAttention* fused = state_of(exec).attention();
  return fused && fused->forward(exec, call);
}

bool fused_attention(ExecContext& exec, const AttentionBackward& call) {
  FusedAttention* fused = state_of(exec).attention();
  return fused && fused->backward(exec, call);
}

}  // namespace weft::cuda
