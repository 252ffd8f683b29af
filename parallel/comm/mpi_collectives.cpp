#include "parallel/comm/mpi_collectives.hpp"

#include <algorithm>
#include <cstring>
#include <span>

#include "parallel/comm/mpi_blocks.hpp"
#include "parallel/comm/reduce_kernels.hpp"

namespace weft {
namespace {

const char* bytes_of(const void* data) { return static_cast<const char*>(data); }
char* bytes_of(void* data) { return static_cast<char*>(data); }

/// Recursive doubling. Ranks beyond the largest power of two lend their values to a partner and get the result. Both
/// sides of an exchange combine in rank order, so all ranks hold the same bits.
Flow all_reduce_small(Lane& lane, const Collective& what) {
  const MpiGroup& group = lane.group();
  const MutView& x = what.output;
  const std::int64_t count = x.numel();
  const bool widen = x.dtype == DType::bf16;
  const DType dtype = widen ? DType::f32 : x.dtype;
  const std::size_t bytes = static_cast<std::size_t>(count) * size_of(dtype);
  void* other = lane.scratch(bytes);
  void* own = x.data;
  if (widen) {
    own = lane.scratch(bytes);
    to_f32(static_cast<const bf16*>(x.data), static_cast<float*>(own), count);
  } else if (what.wire == Wire::bf16) {
    auto* rounded = static_cast<bf16*>(other);
    to_bf16(static_cast<const float*>(x.data), rounded, count);
    to_f32(rounded, static_cast<float*>(own), count);
  }

  int power = 1;
  while (power * 2 <= group.size()) power *= 2;
  const int extra = group.size() - power;
  const int rank = group.rank;
  if (rank >= power) {
    lane.send(own, bytes, rank - power);
    co_await lane.settled();
    lane.recv(own, bytes, rank - power);
    co_await lane.settled();
  } else {
    if (rank < extra) {
      lane.recv(other, bytes, rank + power);
      co_await lane.settled();
      combine(what.reduce, dtype, own, own, other, count);
    }
    for (int distance = 1; distance < power; distance *= 2) {
      const int peer = rank ^ distance;
      lane.recv(other, bytes, peer);
      lane.send(own, bytes, peer);
      co_await lane.settled();
      if (peer < rank)
        combine(what.reduce, dtype, own, other, own, count);
      else
        combine(what.reduce, dtype, own, own, other, count);
    }
    if (rank < extra) {
      lane.send(own, bytes, rank + power);
      co_await lane.settled();
    }
  }
  if (widen) {
    to_bf16(static_cast<const float*>(own), static_cast<bf16*>(x.data), count);
  } else if (what.wire == Wire::bf16) {
    auto* rounded = static_cast<bf16*>(other);
    to_bf16(static_cast<const float*>(own), rounded, count);
    to_f32(rounded, static_cast<float*>(x.data), count);
  }
}

/// Binomial tree, piece by piece.
Flow broadcast_tree(Lane& lane, const Collective& what, std::size_t piece) {
  const MpiGroup& group = lane.group();
  const int place = group.wrap(group.rank - what.peer);
  int low = 1;
  while (low < group.size() && (place & low) == 0) low *= 2;
  char* data = bytes_of(what.output.data);
  const std::size_t bytes = what.output.bytes();
  for (std::size_t begin = 0; begin < bytes; begin += piece) {
    const std::size_t length = std::min(piece, bytes - begin);
    if (place != 0) {
      lane.recv(data + begin, length, group.wrap(place - low + what.peer));
      co_await lane.settled();
    }
    for (int distance = low / 2; distance > 0; distance /= 2)
      if (place + distance < group.size()) lane.send(data + begin, length, group.wrap(place + distance + what.peer));
    co_await lane.settled();
  }
}

Flow all_to_all_direct(Lane& lane, const Collective& what, std::size_t piece, int first, int stride) {
  const MpiGroup& group = lane.group();
  const std::size_t part = what.input.bytes() / static_cast<std::size_t>(group.size());
  const auto at = [part](int member, std::size_t begin) { return static_cast<std::size_t>(member) * part + begin; };
  for (std::size_t begin = piece * static_cast<std::size_t>(first); begin < part;
       begin += piece * static_cast<std::size_t>(stride)) {
    const std::size_t length = std::min(piece, part - begin);
    for (int step = 1; step < group.size(); ++step) {
      const int source = group.wrap(group.rank - step);
      lane.recv(bytes_of(what.output.data) + at(source, begin), length, source);
    }
    for (int step = 1; step < group.size(); ++step) {
      const int target = group.wrap(group.rank + step);
      lane.send(bytes_of(what.input.data) + at(target, begin), length, target);
    }
    std::memcpy(bytes_of(what.output.data) + at(group.rank, begin), bytes_of(what.input.data) + at(group.rank, begin),
                length);
    co_await lane.settled();
  }
}

constexpr std::size_t message_piece = 4 << 20;

Flow message(Lane& lane, const Collective& what) {
  const auto pieces = [](std::size_t bytes, auto&& post) {
    for (std::size_t begin = 0; begin < bytes; begin += message_piece)
      post(begin, std::min(message_piece, bytes - begin));
  };
  if (what.kind != CollectiveKind::send)
    pieces(what.output.bytes(), [&](std::size_t begin, std::size_t length) {
      lane.recv(bytes_of(what.output.data) + begin, length,
                what.kind == CollectiveKind::recv ? what.peer : what.source);
    });
  if (what.kind != CollectiveKind::recv)
    pieces(what.input.bytes(), [&](std::size_t begin, std::size_t length) {
      lane.send(bytes_of(what.input.data) + begin, length, what.peer);
    });
  co_await lane.settled();
}

/// Hillis & Steele 1986: after step k, `total` holds the op over the 2^k ranks up to this one.
Flow scan_doubling(Lane& lane, const Collective& what, std::int64_t piece, int first, int stride) {
  const MpiGroup& group = lane.group();
  const DType dtype = what.input.dtype;
  const std::size_t element = size_of(dtype);
  const std::int64_t count = what.input.numel();
  const std::size_t room = static_cast<std::size_t>(std::min(piece, count)) * element;
  void* total = lane.scratch(room);
  void* other = lane.scratch(room);
  for (std::int64_t begin = piece * first; begin < count; begin += piece * stride) {
    const std::int64_t length = std::min(piece, count - begin);
    const std::size_t bytes = static_cast<std::size_t>(length) * element;
    const std::size_t offset = static_cast<std::size_t>(begin) * element;
    void* output = bytes_of(what.output.data) + offset;
    std::memcpy(total, bytes_of(what.input.data) + offset, bytes);
    if (group.rank == 0) fill_identity(what.reduce, MutView(output, {length}, dtype));
    bool empty = true;
    for (int distance = 1; distance < group.size(); distance *= 2) {
      const bool receives = group.rank >= distance;
      if (receives) lane.recv(other, bytes, group.rank - distance);
      if (group.rank + distance < group.size()) lane.send(total, bytes, group.rank + distance);
      co_await lane.settled();
      if (!receives) continue;
      combine(what.reduce, dtype, total, other, total, length);
      if (empty)
        std::memcpy(output, other, bytes);
      else
        combine(what.reduce, dtype, output, other, output, length);
      empty = false;
    }
  }
}

/// Dissemination: after step k a rank knows of 2^k others.
Flow barrier_dissemination(Lane& lane) {
  const MpiGroup& group = lane.group();
  for (int distance = 1; distance < group.size(); distance *= 2) {
    lane.recv(nullptr, 0, group.wrap(group.rank - distance));
    lane.send(nullptr, 0, group.wrap(group.rank + distance));
    co_await lane.settled();
  }
}

/// What ranks must agree on. No padding: it travels as bytes.
struct Descriptor {
  std::uint64_t sequence;
  std::int64_t count;
  std::int32_t root;
  std::uint8_t kind, reduce, wire, dtype;
};
static_assert(sizeof(Descriptor) == 24);

Descriptor descriptor_of(const Collective& what) {
  const bool moves = what.kind != CollectiveKind::barrier;
  const bool reduces = what.kind == CollectiveKind::all_reduce || what.kind == CollectiveKind::reduce_scatter ||
                       what.kind == CollectiveKind::exclusive_scan;
  return {what.sequence,
          moves ? what.input.numel() : 0,
          what.kind == CollectiveKind::broadcast ? what.peer : 0,
          static_cast<std::uint8_t>(what.kind),
          static_cast<std::uint8_t>(reduces ? what.reduce : ReduceOp::sum),
          static_cast<std::uint8_t>(what.wire),
          static_cast<std::uint8_t>(moves ? what.input.dtype : DType::u8)};
}

std::string to_text(const Descriptor& d) {
  std::string text{name_of(static_cast<CollectiveKind>(d.kind))};
  text += fmt::format(" #{} of {} {}", d.sequence, d.count, name_of(static_cast<DType>(d.dtype)));
  const auto kind = static_cast<CollectiveKind>(d.kind);
  if (kind == CollectiveKind::broadcast) text += fmt::format(", root {}", d.root);
  if (static_cast<ReduceOp>(d.reduce) != ReduceOp::sum)
    text += fmt::format(", {}", name_of(static_cast<ReduceOp>(d.reduce)));
  if (static_cast<Wire>(d.wire) == Wire::bf16) text += ", bf16 wire";
  return text;
}

}  // namespace

Flow check_flow(Lane& lane, const Collective& what) {
  const MpiGroup& group = lane.group();
  const Descriptor own = descriptor_of(what);
  Descriptor left{};
  lane.recv(&left, sizeof left, group.wrap(group.rank - 1));
  lane.send(&own, sizeof own, group.wrap(group.rank + 1));
  co_await lane.settled();
  if (std::memcmp(&own, &left, sizeof own) != 0)
    fail("the ranks of group {} are in different collectives: rank {} in {}, rank {} in {}", group.name,
         group.members[static_cast<std::size_t>(group.rank)], to_text(own),
         group.members[static_cast<std::size_t>(group.wrap(group.rank - 1))], to_text(left));
}

std::vector<Flow> make_flows(const Collective& what, const std::vector<std::unique_ptr<Lane>>& lanes,
                             const MpiTuning& tuning) {
  std::vector<Flow> flows;
  const MpiGroup& group = lanes[0]->group();
  const auto piece_elements = [&](const View& view) {
    return static_cast<std::int64_t>(tuning.message_bytes / size_of(view.dtype));
  };
  const auto on_lanes = [&](std::int64_t blocks, auto&& make) {
    const int count =
        static_cast<int>(std::min<std::int64_t>(blocks, group.spans_hosts ? tuning.lanes : tuning.local_lanes));
    for (int lane = 0; lane < count; ++lane) flows.push_back(make(*lanes[static_cast<std::size_t>(lane)], lane, count));
  };
  switch (what.kind) {
    case CollectiveKind::all_reduce:
      if (what.output.bytes() <= tuning.small_bytes) {
        flows.push_back(all_reduce_small(*lanes[0], what));
        break;
      }
      [[fallthrough]];
    case CollectiveKind::all_gather:
    case CollectiveKind::reduce_scatter: {
      const BlockJob job = make_block_job(what, group, tuning);
      on_lanes(job.blocks, [&](Lane& lane, int first, int stride) { return block_flow(lane, job, first, stride); });
      break;
    }
    case CollectiveKind::broadcast: flows.push_back(broadcast_tree(*lanes[0], what, tuning.message_bytes)); break;
    case CollectiveKind::all_to_all: {
      const std::size_t part = what.input.bytes() / static_cast<std::size_t>(group.size());
      const auto blocks = static_cast<std::int64_t>((part + tuning.message_bytes - 1) / tuning.message_bytes);
      on_lanes(blocks, [&](Lane& lane, int first, int stride) {
        return all_to_all_direct(lane, what, tuning.message_bytes, first, stride);
      });
      break;
    }
    case CollectiveKind::send:
    case CollectiveKind::recv:
    case CollectiveKind::send_recv: flows.push_back(message(*lanes[0], what)); break;
    case CollectiveKind::exclusive_scan: {
      const std::int64_t piece = piece_elements(what.input);
      on_lanes((what.input.numel() + piece - 1) / piece,
               [&](Lane& lane, int first, int stride) { return scan_doubling(lane, what, piece, first, stride); });
      break;
    }
    case CollectiveKind::barrier: flows.push_back(barrier_dissemination(*lanes[0])); break;
  }
  return flows;
}

}  // namespace weft
