// Groups of devices of several processes that exchange their memory without the host (NCCL).
#pragma once
#include <array>
#include <cstddef>
#include <memory>
#include <span>
#include <string>

#include "core/kernels/collective.hpp"
#include "core/kernels/exec.hpp"

namespace weft {

/// What the members of a new group find each other by.
using LinkId = std::array<std::byte, 128>;

struct LinkPlace {
  int rank = 0;  ///< in the group
  int size = 1;
  std::string group;  ///< its name, for messages
  std::string host;   ///< this rank's, for messages
};

/// What one member sends to or receives from another.
struct LinkMessage {
  int peer = 0;
  View sent;         ///< empty: it receives
  MutView received;  ///< empty: it sends
};

/// Calls enqueue on `queue` and return; views are contiguous memory of its device. All members start the same calls in the
/// same order, each from one thread. Any dtype moves; f32 and f64 are summed, i32, i64 and u8 reduce (a link would round
/// sums of bf16 at each hop, and loses NaN in max and min). Calls throw Error that names rank, host and group when they
/// cannot be enqueued or the group has failed. They may be part of a recorded step.
class DeviceGroup {
 public:
  virtual ~DeviceGroup() = default;
  virtual void all_reduce(ExecContext& queue, MutView x, ReduceOp op) = 0;
  virtual void all_gather(ExecContext& queue, View input, MutView output) = 0;
  virtual void reduce_scatter(ExecContext& queue, View input, MutView output, ReduceOp op) = 0;
  virtual void broadcast(ExecContext& queue, MutView x, int root) = 0;
  virtual void all_to_all(ExecContext& queue, View input, MutView output) = 0;
  /// All of them as one operation: none waits for another. Those between two members are in one order on both.
  virtual void exchange(ExecContext& queue, std::span<const LinkMessage> messages) = 0;

  /// Looks for an error that came after a call had returned, from any thread: ends the group and throws Error if there is
  /// one.
  virtual void poll() = 0;
};

/// One device's way into groups.
class DeviceLinks {
 public:
  virtual ~DeviceLinks() = default;
  virtual LinkId make_id() = 0;
  /// Joins the group of `id`, which one member made and gave to all. Throws Error when the others have not come within
  /// `timeout` seconds; the process is to end then.
  virtual std::unique_ptr<DeviceGroup> join(const LinkId& id, const LinkPlace& place, double timeout) = 0;
};

}  // namespace weft
