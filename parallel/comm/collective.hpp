// What a collective is, as the checked public face hands it to a transport.
#pragma once
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "core/kernels/collective.hpp"
#include "core/tensor/view.hpp"

namespace weft {

enum class CollectiveKind : std::uint8_t {
  all_reduce,
  all_gather,
  reduce_scatter,
  broadcast,
  all_to_all,
  send,
  recv,
  send_recv,
  exclusive_scan,
  barrier
};
inline constexpr std::size_t collective_kind_count = 10;

std::string_view name_of(CollectiveKind kind);

/// Whether it is between two or three ranks, not all of the group.
constexpr bool is_message(CollectiveKind kind) {
  return kind == CollectiveKind::send || kind == CollectiveKind::recv || kind == CollectiveKind::send_recv;
}

std::string_view name_of(ReduceOp op);

/// How elements travel: as they are, or f32 sums rounded to bf16 (each contribution is rounded once, the sum is taken
/// in f32, and for all_reduce the result is rounded once more).
enum class Wire : std::uint8_t { native, bf16 };

/// A group whose collectives something waits for now (urgent), or whose collectives overlap computation (bulk).
/// Operations of up to 64 KiB are always urgent.
enum class Priority : std::uint8_t { urgent, bulk };

struct Collective {
  CollectiveKind kind = CollectiveKind::barrier;
  ReduceOp reduce = ReduceOp::sum;
  Wire wire = Wire::native;
  Priority priority = Priority::urgent;
  int peer = 0;    ///< the root of a broadcast, the other side of a send or recv, the destination of a send_recv
  int source = 0;  ///< of a send_recv
  int tag = 0;     ///< of a message, 0 to 63
  View input = {};
  MutView output = {};
  std::uint64_t sequence = 0;  ///< counts the group's collectives; a message counts those with its peer and tag
};

/// Bytes that one of `size` ranks sends for it with a bandwidth-optimal algorithm (the convention of nccl-tests' bus
/// bandwidth; for a recv, bytes received).
std::uint64_t wire_bytes(const Collective& what, int size);

}  // namespace weft
