#include "parallel/comm/collective.hpp"

#include <array>
#include <bit>

namespace weft {

std::string_view name_of(CollectiveKind kind) {
  constexpr std::array<std::string_view, collective_kind_count> names = {
      "all_reduce", "all_gather", "reduce_scatter", "broadcast",      "all_to_all",
      "send",       "recv",       "send_recv",      "exclusive_scan", "barrier"};
  return names[static_cast<std::size_t>(kind)];
}

std::string_view name_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum: return "sum";
    case ReduceOp::max: return "max";
    case ReduceOp::min: return "min";
  }
  return "?";
}

std::uint64_t wire_bytes(const Collective& what, int size) {
  const auto ranks = static_cast<std::uint64_t>(size);
  const auto travelling = [&](const View& view) {
    const auto element = what.wire == Wire::bf16 ? size_of(DType::bf16) : size_of(view.dtype);
    return static_cast<std::uint64_t>(view.numel()) * element;
  };
  switch (what.kind) {
    case CollectiveKind::all_reduce: return 2 * travelling(what.output) * (ranks - 1) / ranks;
    case CollectiveKind::all_gather: return travelling(what.input) * (ranks - 1);
    case CollectiveKind::reduce_scatter:
    case CollectiveKind::all_to_all: return travelling(what.input) * (ranks - 1) / ranks;
    case CollectiveKind::broadcast:
    case CollectiveKind::recv: return travelling(what.output);
    case CollectiveKind::send:
    case CollectiveKind::send_recv: return travelling(what.input);
    case CollectiveKind::exclusive_scan: return travelling(what.input) * std::bit_width(ranks - 1);
    case CollectiveKind::barrier: return 0;
  }
  return 0;
}

}  // namespace weft
