#include "parallel/comm/linked_collectives.hpp"

#include <vector>

#include "core/kernels/table.hpp"
#include "parallel/comm/reduce_kernels.hpp"

namespace weft {
namespace {

constexpr std::size_t alignment = 64;
constexpr std::int64_t whole_accesses = 8;  // elements of a part, so that kernels take 16 bytes at a time

bool is_float(DType dtype) { return dtype == DType::f32 || dtype == DType::bf16 || dtype == DType::f64; }

/// Whether links give the sum that Communicator promises.
bool by_links(const Collective& what) {
  const DType dtype = what.output.dtype;
  if (what.wire != Wire::native) return false;
  return !is_float(dtype) || (what.reduce == ReduceOp::sum && dtype != DType::bf16);
}

std::size_t aligned(std::size_t bytes) { return (bytes + alignment - 1) / alignment * alignment; }

std::int64_t up_to(std::int64_t count, std::int64_t multiple) { return (count + multiple - 1) / multiple * multiple; }

DType scanned_in(DType dtype) { return dtype == DType::bf16 ? DType::f32 : dtype; }

View flat(const View& x) { return x.reshaped({x.numel()}); }
MutView flat(const MutView& x) { return x.reshaped({x.numel()}); }

}  // namespace

LinkedCollectives::Parts LinkedCollectives::parts_of(const Collective& what) const {
  Parts parts;
  parts.dtype = what.wire == Wire::bf16 ? DType::bf16 : what.input.dtype;
  const std::int64_t count = what.input.numel();
  parts.part = what.kind == CollectiveKind::all_reduce ? up_to((count + size_ - 1) / size_, whole_accesses)
                                                       : what.output.numel();
  parts.converts = parts.dtype != what.input.dtype || parts.part * size_ != count;
  parts.bytes = aligned(static_cast<std::size_t>(parts.part * size_) * size_of(parts.dtype));
  return parts;
}

std::size_t LinkedCollectives::scratch_bytes(const Collective& what) const {
  if (what.kind == CollectiveKind::exclusive_scan)
    return aligned(3 * static_cast<std::size_t>(what.input.numel()) * size_of(scanned_in(what.input.dtype)));
  if (what.kind != CollectiveKind::all_reduce && what.kind != CollectiveKind::reduce_scatter) return 0;
  if (by_links(what)) return 0;
  const Parts parts = parts_of(what);
  return parts.converts ? 2 * parts.bytes : parts.bytes;
}

void LinkedCollectives::enqueue(const Collective& what, void* scratch) {
  switch (what.kind) {
    case CollectiveKind::all_reduce:
      if (!by_links(what)) return all_reduce_in_parts(what, static_cast<char*>(scratch));
      return group_.all_reduce(queue_, what.output, what.reduce);
    case CollectiveKind::reduce_scatter:
      if (!by_links(what)) return reduce_scatter_in_parts(what, static_cast<char*>(scratch));
      return group_.reduce_scatter(queue_, what.input, what.output, what.reduce);
    case CollectiveKind::all_gather: return group_.all_gather(queue_, what.input, what.output);
    case CollectiveKind::broadcast: return group_.broadcast(queue_, what.output, what.peer);
    case CollectiveKind::all_to_all: return group_.all_to_all(queue_, what.input, what.output);
    case CollectiveKind::exclusive_scan: return exclusive_scan(what, static_cast<char*>(scratch));
    default: fail("{} is no collective of links", name_of(what.kind));
  }
}

void LinkedCollectives::convert(View from, MutView to) {
  if (from.dtype == to.dtype)
    queue_.kernels().transfer.copy(queue_, from, to);
  else
    queue_.kernels().elementwise.copy(queue_, from, to);
}

// Each rank reduces its part and gives the result to all.
void LinkedCollectives::all_reduce_in_parts(const Collective& what, char* scratch) {
  const Parts parts = parts_of(what);
  const std::int64_t count = what.input.numel(), whole = parts.part * size_, own = rank_ * parts.part;
  const DeviceId device = what.input.device;
  const MutView got(scratch, {size_, parts.part}, parts.dtype, device);
  MutView sent = flat(what.output);
  if (parts.converts) {
    sent = MutView(scratch + parts.bytes, {whole}, parts.dtype, device);
    convert(flat(what.input), sent.slice(0, count));
    if (count < whole) queue_.kernels().elementwise.fill(queue_, 0.0f, sent.slice(count, whole));
  }
  const MutView result = sent.slice(own, own + parts.part);
  group_.all_to_all(queue_, sent, got);
  queue_.kernels().collective.reduce(queue_, what.reduce, got, result);
  group_.all_gather(queue_, result, sent);
  if (parts.converts) convert(sent.slice(0, count), flat(what.output));
}

void LinkedCollectives::reduce_scatter_in_parts(const Collective& what, char* scratch) {
  const Parts parts = parts_of(what);
  const DeviceId device = what.input.device;
  const MutView got(scratch, {size_, parts.part}, parts.dtype, device);
  View sent = flat(what.input);
  if (parts.converts) {
    const MutView copy(scratch + parts.bytes, {parts.part * size_}, parts.dtype, device);
    convert(sent, copy);
    sent = copy;
  }
  group_.all_to_all(queue_, sent, got);
  queue_.kernels().collective.reduce(queue_, what.reduce, got, flat(what.output));
}

// Hillis & Steele 1986: after the round of distance d, `sum` holds the values of 2d ranks up to this one, and `lower` those
// of them that lie below it.
void LinkedCollectives::exclusive_scan(const Collective& what, char* scratch) {
  const std::int64_t count = what.input.numel();
  const MutView rows(scratch, {3, count}, scanned_in(what.input.dtype), what.input.device);
  const auto row = [&](std::int64_t at) { return flat(rows.slice(at, at + 1)); };
  const MutView lower = row(0), got = row(1), sum = row(2);
  const auto& reduce = queue_.kernels().collective.reduce;
  convert(flat(what.input), sum);
  for (int distance = 1; distance < size_; distance *= 2) {
    const bool receives = rank_ >= distance;
    std::vector<LinkMessage> messages;
    if (rank_ + distance < size_) messages.push_back({rank_ + distance, sum, {}});
    if (receives) messages.push_back({rank_ - distance, {}, got});
    if (!messages.empty()) group_.exchange(queue_, messages);
    if (!receives) continue;
    if (distance == 1)
      convert(got, lower);
    else
      reduce(queue_, what.reduce, rows.slice(0, 2), lower);
    reduce(queue_, what.reduce, rows.slice(1, 3), sum);
  }
  if (rank_ == 0)
    fill_identity(queue_, what.reduce, what.output);
  else
    convert(lower, flat(what.output));
}

}  // namespace weft
