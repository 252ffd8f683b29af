// Attention as graphs of the operations that cuDNN recognises and fuses (its "SDPA" patterns).
#pragma once
#include "core/cuda/cudnn/graph.hpp"
#include "core/cuda/fused_attention_rule.hpp"

namespace weft::cuda {

/// What stands where in a call's memory: ids of a graph's tensors, and places in AttentionPointers.
enum class AttentionTensor : std::uint8_t {
  q,
  k,
  v,
  out,
  lse,
  dout,
  dq,
  dk,
  dv,
  row_sums,  ///< f32 [B, H, Tq], scratch: Σ dout·out
  scale,     ///< on the host, as the two below
  minus_infinity,
  one,
  count,
};
inline constexpr auto attention_tensors = static_cast<std::size_t>(AttentionTensor::count);

/// Addresses by AttentionTensor; null where the call has none.
using AttentionPointers = std::array<const void*, attention_tensors>;

/// All that a graph depends on. Operands lie as [B, T, H, hd].
struct AttentionGraph {
  /// Strides of batch, row and head, in elements.
  struct Operand {
    std::int64_t batch = 0, row = 0, head = 0;
    auto operator<=>(const Operand&) const = default;
  };

  bool backward = false;
  bool causal = false;
  bool has_lse = false;
  std::int64_t batch = 0, q_len = 0, k_len = 0, heads = 0, kv_heads = 0, head_dim = 0;
  std::array<Operand, static_cast<std::size_t>(AttentionTensor::dv) + 1> operands{};
  auto operator<=>(const AttentionGraph&) const = default;

  Operand& operator[](AttentionTensor tensor) { return operands[static_cast<std::size_t>(tensor)]; }
  const Operand& operator[](AttentionTensor tensor) const { return operands[static_cast<std::size_t>(tensor)]; }
};

AttentionGraph graph_of(const AttentionForward& call);
AttentionGraph graph_of(const AttentionBackward& call);

/// The graph's tensors in memory have the ids of AttentionTensor.
CudnnGraph build(const Cudnn& api, const AttentionGraph& graph);

/// The engine to take instead of the proposed one, if there is such a one: on Blackwell the backward whose sums have a
/// fixed order has to be asked for.
const CudnnEngine* engine_for(const AttentionGraph& graph, const FusedDevice& device);

}  // namespace weft::cuda
