#include "parallel/comm/mpi_blocks.hpp"

#include <algorithm>
#include <cstring>

#include "parallel/comm/reduce_kernels.hpp"

namespace weft {
namespace {

/// Elements of one rank's segment of one block.
struct Piece {
  std::int64_t begin = 0;
  std::int64_t count = 0;
};

/// Where the segments of a job lie: all_reduce cuts its blocks into n even segments; the others have one part a rank,
/// and block b is the b-th stretch of each part.
class Segments {
 public:
  Segments(const BlockJob& job, int ranks) : ranks_(ranks), segment_(job.segment), even_(job.reduces && job.gathers) {
    const Collective& what = job.what;
    count_ = even_ ? what.output.numel() : std::min(what.input.numel(), what.output.numel());
  }
  Piece at(std::int64_t block, int rank) const {
    if (even_) {
      const std::int64_t begin = block * segment_ * ranks_;
      const std::int64_t length = std::min(segment_ * ranks_, count_ - begin);
      const std::int64_t low = length * rank / ranks_;
      return {begin + low, length * (rank + 1) / ranks_ - low};
    }
    const std::int64_t begin = block * segment_;
    return {rank * count_ + begin, std::min(segment_, count_ - begin)};
  }
  /// The same piece in a tensor that holds this rank's part alone.
  Piece alone(std::int64_t block) const { return even_ ? Piece{} : at(block, 0); }

 private:
  int ranks_;
  std::int64_t segment_;
  bool even_;
  std::int64_t count_ = 0;
};

template <class Pointer>
auto address(Pointer data, std::int64_t element, DType dtype) {
  using Byte = std::conditional_t<std::is_const_v<std::remove_pointer_t<Pointer>>, const char, char>;
  return static_cast<Byte*>(data) + element * static_cast<std::int64_t>(size_of(dtype));
}

/// Scratch and addresses that the phases of a lane's blocks share.
struct BlockContext {
  Lane& lane;
  const BlockJob& job;
  Segments segments;
  DType dtype;       ///< of the tensors
  DType wire_dtype;  ///< of the messages
  int ranks;
  int rank;
  std::vector<char*> slots;  ///< one segment each, in wire_dtype; direct: one a rank, ring: two
  char* outgoing = nullptr;  ///< n segments, when tensors and messages differ in dtype

  BlockContext(Lane& lane_, const BlockJob& job_)
      : lane(lane_), job(job_), segments(job_, lane_.group().size()), dtype(job_.what.output.dtype),
        wire_dtype(job_.what.wire == Wire::bf16 ? DType::bf16 : dtype), ranks(lane_.group().size()),
        rank(lane_.group().rank) {
    const std::size_t room = segment_bytes();
    if (job.reduces || converts()) {
      slots.resize(job.ring ? 2 : static_cast<std::size_t>(ranks));
      for (char*& slot : slots) slot = static_cast<char*>(lane.scratch(room));
    }
    if (converts()) outgoing = static_cast<char*>(lane.scratch(room * static_cast<std::size_t>(ranks)));
  }
  bool converts() const { return wire_dtype != dtype; }
  std::size_t segment_bytes() const { return static_cast<std::size_t>(job.segment) * size_of(wire_dtype); }
  std::size_t wire_bytes(Piece piece) const { return static_cast<std::size_t>(piece.count) * size_of(wire_dtype); }
  const char* input(Piece piece) const { return address(job.what.input.data, piece.begin, dtype); }
  char* output(Piece piece) const { return address(job.what.output.data, piece.begin, dtype); }
  /// Where this rank's reduced segment goes.
  char* result(std::int64_t block) const {
    return output(job.gathers ? segments.at(block, rank) : segments.alone(block));
  }
  char* outgoing_for(int member) const { return outgoing + static_cast<std::size_t>(member) * segment_bytes(); }
};

void post_direct_reduce(BlockContext& block, std::int64_t index) {
  Lane& lane = block.lane;
  const MpiGroup& group = lane.group();
  const Piece own = block.segments.at(index, block.rank);
  for (int step = 1; step < block.ranks; ++step) {
    const int source = group.wrap(block.rank - step);
    lane.recv(block.slots[static_cast<std::size_t>(source)], block.wire_bytes(own), source);
  }
  for (int step = 1; step < block.ranks; ++step) {
    const int target = group.wrap(block.rank + step);
    const Piece piece = block.segments.at(index, target);
    const char* data = block.input(piece);
    if (block.converts()) {
      data = block.outgoing_for(target);
      to_bf16(reinterpret_cast<const float*>(block.input(piece)), reinterpret_cast<bf16*>(block.outgoing_for(target)),
              piece.count);
    }
    lane.send(data, block.wire_bytes(piece), target);
  }
}

/// Sums (or max, min) what came, in rank order, whoever computes it.
void finish_direct_reduce(BlockContext& block, std::int64_t index) {
  const Collective& what = block.job.what;
  const Piece own = block.segments.at(index, block.rank);
  char* result = block.result(index);
  if (block.wire_dtype == DType::bf16 && what.reduce == ReduceOp::sum) {
    std::vector<const bf16*> parts(static_cast<std::size_t>(block.ranks));
    for (int source = 0; source < block.ranks; ++source)
      parts[static_cast<std::size_t>(source)] =
          reinterpret_cast<const bf16*>(block.slots[static_cast<std::size_t>(source)]);
    auto& mine = parts[static_cast<std::size_t>(block.rank)];
    mine = reinterpret_cast<const bf16*>(block.input(own));
    if (block.converts()) {
      auto* rounded = reinterpret_cast<bf16*>(block.slots[static_cast<std::size_t>(block.rank)]);
      to_bf16(reinterpret_cast<const float*>(block.input(own)), rounded, own.count);
      mine = rounded;
    }
    if (!block.converts()) {
      sum_bf16(parts, reinterpret_cast<bf16*>(result), own.count);
    } else if (block.job.gathers) {
      // The rounded result is what the others get, so this rank keeps it too.
      auto* rounded = reinterpret_cast<bf16*>(block.outgoing_for(block.rank));
      sum_bf16(parts, rounded, own.count);
      to_f32(rounded, reinterpret_cast<float*>(result), own.count);
    } else {
      sum_bf16(parts, reinterpret_cast<float*>(result), own.count);
    }
    return;
  }
  const auto part = [&](int source) -> const char* {
    return source == block.rank ? block.input(own) : block.slots[static_cast<std::size_t>(source)];
  };
  // `result` may be this rank's own input, so partial results stay in a slot until that was read.
  char* total = block.rank == 0 ? result : block.slots[0];
  const char* running = part(0);
  for (int source = 1; source < block.ranks; ++source) {
    char* target = source == block.ranks - 1 ? result : total;
    combine(what.reduce, block.dtype, target, running, part(source), own.count);
    running = target;
  }
}

void post_direct_gather(BlockContext& block, std::int64_t index) {
  Lane& lane = block.lane;
  const MpiGroup& group = lane.group();
  for (int step = 1; step < block.ranks; ++step) {
    const int source = group.wrap(block.rank - step);
    const Piece piece = block.segments.at(index, source);
    char* data = block.converts() ? block.slots[static_cast<std::size_t>(source)] : block.output(piece);
    lane.recv(data, block.wire_bytes(piece), source);
  }
  const Piece own = block.segments.at(index, block.rank);
  const char* data = block.converts() ? block.outgoing_for(block.rank) : block.output(own);
  for (int step = 1; step < block.ranks; ++step) lane.send(data, block.wire_bytes(own), group.wrap(block.rank + step));
}

void finish_direct_gather(BlockContext& block, std::int64_t index) {
  if (!block.converts()) return;
  for (int source = 0; source < block.ranks; ++source) {
    if (source == block.rank) continue;
    const Piece piece = block.segments.at(index, source);
    to_f32(reinterpret_cast<const bf16*>(block.slots[static_cast<std::size_t>(source)]),
           reinterpret_cast<float*>(block.output(piece)), piece.count);
  }
}

}  // namespace

BlockJob make_block_job(const Collective& what, const MpiGroup& group, const MpiTuning& tuning) {
  BlockJob job;
  job.what = what;
  job.reduces = what.kind != CollectiveKind::all_gather;
  job.gathers = what.kind != CollectiveKind::reduce_scatter;
  const bool bf16_sum =
      job.reduces && what.reduce == ReduceOp::sum && (what.wire == Wire::bf16 || what.output.dtype == DType::bf16);
  const bool prefers_ring = group.size() > tuning.direct_ranks || (group.spans_hosts && group.size() > 2);
  job.ring = prefers_ring && !bf16_sum;
  constexpr std::size_t least_bytes = 8 << 10;
  const auto ranks = static_cast<std::size_t>(group.size());
  // Direct keeps a slot a rank: the whole set should stay in cache.
  const std::size_t bytes =
      job.ring || !job.reduces ? tuning.message_bytes : std::max(least_bytes, 2 * tuning.message_bytes / ranks);
  const bool even = job.reduces && job.gathers;
  const std::int64_t count = even ? what.output.numel() : std::min(what.input.numel(), what.output.numel());
  const std::int64_t largest = even ? (count + group.size() - 1) / group.size() : count;
  job.segment = std::min(largest, static_cast<std::int64_t>(bytes / size_of(what.output.dtype)));
  const std::int64_t covered = even ? job.segment * group.size() : job.segment;
  job.blocks = (count + covered - 1) / covered;
  return job;
}

Flow block_flow(Lane& lane, BlockJob job, int first, int stride) {
  BlockContext block(lane, job);
  const MpiGroup& group = lane.group();
  const int left = group.wrap(group.rank - 1);
  const int right = group.wrap(group.rank + 1);
  for (std::int64_t index = first; index < job.blocks; index += stride) {
    if (job.reduces && !job.ring) {
      post_direct_reduce(block, index);
      co_await lane.settled();
      finish_direct_reduce(block, index);
    } else if (job.reduces) {
      // Segment s starts at rank s + 1 and gathers contributions until it reaches rank s.
      for (int step = 0; step < block.ranks - 1; ++step) {
        const Piece going = block.segments.at(index, group.wrap(block.rank - 1 - step));
        const Piece coming = block.segments.at(index, group.wrap(block.rank - 2 - step));
        lane.recv(block.slots[0], block.wire_bytes(coming), left);
        lane.send(step == 0 ? block.input(going) : block.slots[1], block.wire_bytes(going), right);
        co_await lane.settled();
        const bool last = step == block.ranks - 2;
        combine(job.what.reduce, block.dtype, last ? block.result(index) : block.slots[0], block.slots[0],
                block.input(coming), coming.count);
        std::swap(block.slots[0], block.slots[1]);
      }
    } else {
      const Piece own = block.segments.at(index, block.rank);
      const char* input = block.input(block.segments.alone(index));
      if (input != block.output(own)) std::memcpy(block.output(own), input, block.wire_bytes(own));
    }
    if (!job.gathers) continue;
    if (!job.ring) {
      post_direct_gather(block, index);
      co_await lane.settled();
      finish_direct_gather(block, index);
      continue;
    }
    for (int step = 0; step < block.ranks - 1; ++step) {
      const Piece going = block.segments.at(index, group.wrap(block.rank - step));
      const Piece coming = block.segments.at(index, group.wrap(block.rank - 1 - step));
      lane.recv(block.output(coming), block.wire_bytes(coming), left);
      lane.send(block.output(going), block.wire_bytes(going), right);
      co_await lane.settled();
    }
  }
}

}  // namespace weft
