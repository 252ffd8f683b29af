// Which attention calls go to cuDNN, and in what pieces: a pure function of shapes, device and version, so that every
// run of a layout takes the same way.
#pragma once
#include <cstddef>
#include <cstdint>
#include <span>

#include "core/cuda/fused_attention.hpp"

namespace weft::cuda {

enum class AttentionMask : std::uint8_t {
  none,    ///< every query sees every key
  causal,  ///< query i sees keys 0 to i, and there are as many keys as queries
  other,
};

/// What a call looks like to the rule.
struct AttentionCall {
  DType dtype = DType::bf16;
  std::int64_t batch = 1, q_len = 1, k_len = 1, heads = 1, kv_heads = 1, head_dim = 1;
  AttentionMask mask = AttentionMask::none;
  bool dropout = false;
  bool aligned = true;  ///< addresses, and distances between rows, heads and sequences, are multiples of 16 bytes

  std::int64_t group() const { return heads / kv_heads; }
};

AttentionCall describe(const AttentionForward& call);
AttentionCall describe(const AttentionBackward& call);

struct FusedDevice {
  int capability = 0;       ///< of the GPU: 90 is 9.0
  std::size_t version = 0;  ///< as cudnnGetVersion says it: 91900 is 9.19.0
};

/// Older versions read wrong results in some shapes, or leave buffers to be cleared by the caller.
inline constexpr std::size_t oldest_cudnn = 91002;

/// Bytes of the gradient of one key-value head's scores, which the backward holds in memory in bf16: dq is summed from it
/// in a product of its own, and not by atomic additions in any order.
std::int64_t score_bytes(const AttentionCall& call);

/// What is held of that at a time, if one head does not need more.
inline constexpr std::int64_t most_score_bytes = std::int64_t{512} << 20;
/// A call of which one head needs more than this is left to the own kernel.
inline constexpr std::int64_t most_head_score_bytes = std::int64_t{8} << 30;

/// Datacentre Blackwell adds to dq within one engine, whose order is fixed if it is asked for.
bool needs_ordered_engine(const FusedDevice& device);

bool fuses_forward(const AttentionCall& call, const FusedDevice& device);
/// Only where the gradient has the same bits each time.
bool fuses_backward(const AttentionCall& call, const FusedDevice& device, std::int64_t most_bytes = most_score_bytes);

/// How much of a backward call goes to cuDNN at a time: whole sequences, or some key-value heads (with their queries) of
/// one sequence.
struct AttentionPiece {
  std::int64_t batch, kv_heads;
  bool operator==(const AttentionPiece&) const = default;
};

/// The largest pieces that hold at most `most_bytes`, but at least one head, evened out.
AttentionPiece backward_piece(const AttentionCall& call, std::int64_t most_bytes = most_score_bytes);

}  // namespace weft::cuda
