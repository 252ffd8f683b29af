// Attention by a vendor's fused kernels, for the calls that they take. On the GPU cuDNN computes them
// (cudnn/), in tests without one nobody does (fibers/fused_attention_fibers.cpp).
#pragma once
#include <filesystem>
#include <memory>
#include <span>
#include <string>

#include "core/kernels/attention.hpp"

namespace weft::cuda {

/// The arguments of AttentionKernels::forward and ::backward, checked, with at least one query.
struct AttentionForward {
  View q, k, v;
  AttentionSpec spec;
  MutView out, lse;
};
struct AttentionBackward {
  View q, k, v, out, lse, dout;
  AttentionSpec spec;
  MutView dq, dk, dv;
};

class FusedAttention {
 public:
  FusedAttention() = default;
  FusedAttention(const FusedAttention&) = delete;
  FusedAttention& operator=(const FusedAttention&) = delete;
  virtual ~FusedAttention() = default;
  /// False, and nothing is done, if the call is not taken. The same shapes get the same answer. Throws Error if a call
  /// that is taken fails.
  virtual bool forward(ExecContext& exec, const AttentionForward& call) = 0;
  virtual bool backward(ExecContext& exec, const AttentionBackward& call) = 0;
  /// Library, version and file.
  virtual std::string description() const = 0;
};

/// cuDNN's, for the device that is current, of this compute capability (90 is 9.0). Throws Error that says why there is
/// none. It is also looked for in `folders`.
std::unique_ptr<FusedAttention> make_cudnn_attention(int capability, std::span<const std::filesystem::path> folders);

/// The same of the context's backend state; false where it has no fused kernels.
bool fused_attention(ExecContext& exec, const AttentionForward& call);
bool fused_attention(ExecContext& exec, const AttentionBackward& call);

}  // namespace weft::cuda
