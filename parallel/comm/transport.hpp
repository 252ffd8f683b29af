// The kinds of communicator: MPI, NCCL, and the decorator for tests. The public face is Communicator.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "parallel/comm/operation.hpp"

namespace weft {

class Communicator;

/// Moves the bytes of one group of two or more ranks. Everything that arrives here is checked: contiguous views on a
/// device that serves(), equal counts, more than zero elements.
class Transport {
 public:
  virtual ~Transport() = default;
  virtual int rank() const = 0;
  /// The members' ranks in the world, in group order.
  virtual const std::vector<int>& members() const = 0;
  virtual bool serves(DeviceId device) const = 0;
  /// Whether collectives on device memory can be part of a recorded step (Device::capture).
  virtual bool recordable() const { return false; }
  /// Called once, by all members, when `group` was made over this transport: its collectives on host memory work.
  virtual void connect(Communicator& group) { static_cast<void>(group); }
  /// Starts `operation`; the transport calls its finish() once, unless it becomes part of a recorded step.
  virtual void start(std::shared_ptr<Operation> operation) = 0;
  /// A number that no group of this rank bears yet.
  virtual int free_context() const = 0;
  /// `members`: ranks in this group that form the new one, in order, this rank among them. `context`: the largest
  /// free_context() of this group's ranks. Ranks of different new groups may pass the same context.
  virtual std::unique_ptr<Transport> subgroup(const std::vector<int>& members, int context,
                                              const std::string& name) = 0;
};

}  // namespace weft
