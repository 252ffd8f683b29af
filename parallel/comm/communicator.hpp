// The public face of a group of ranks. All members of all groups start collectives in one program order.
#pragma once
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "core/kernels/device.hpp"
#include "parallel/comm/comm_log.hpp"
#include "parallel/comm/transport.hpp"

namespace weft {

struct ReduceOptions {
  ReduceOp op = ReduceOp::sum;
  Wire wire = Wire::native;
  Keep keep = nullptr;
};

/// How a group, and those split from it, reach memory of a device other than the host.
struct DeviceReach {
  Device* device = nullptr;  ///< outlives the groups; null: host memory only
  /// Makes a transport serve the device's memory; its subgroup() makes transports that do.
  std::function<std::unique_ptr<Transport>(std::unique_ptr<Transport>)> extend;
};

/// A group of ranks. Collectives start at once and run beside the caller; `comm.all_reduce(x).wait()` is the blocking
/// form. Views are contiguous; any dtype travels, f32, bf16, f64, i32, i64 and u8 reduce; sums of bf16 are taken in f32
/// and rounded once. The order of a reduction depends on the layout alone: every run gives the same bits, and all ranks
/// get the same. Groups of one rank and counts of zero cost nothing. Wrong arguments throw Error before anything is
/// sent.
class Communicator {
 public:
  Communicator(std::unique_ptr<Transport> transport, CommLog& log, std::string name, Priority priority);
  /// A group of this rank alone. Its collectives on memory of `device` are part of the device's queue.
  Communicator(int world_rank, CommLog& log, std::string name, Device* device = nullptr);
  ~Communicator();
  Communicator(const Communicator&) = delete;
  Communicator& operator=(const Communicator&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  const std::string& name() const { return name_; }
  Priority priority() const { return priority_; }
  /// The members' ranks in the world, in group order.
  const std::vector<int>& members() const { return members_; }
  /// A sign for those who wait long for this rank's part of a collective: it computes.
  void working() { log_.moves(); }
  /// The device whose memory it reaches beside the host's; null: none.
  Device* device() const { return device_; }
  /// Whether collectives on device memory can be part of a recorded step (Device::capture).
  bool recordable() const;

  /// x = op over ranks of x.
  [[nodiscard]] Work all_reduce(MutView x, ReduceOptions options = {});
  /// output = the ranks' inputs one after another: count(output) = size · count(input). `input` may be this rank's own
  /// place in `output`.
  [[nodiscard]] Work all_gather(View input, MutView output, Keep keep = nullptr);
  /// output = this rank's part of op over ranks of input: count(input) = size · count(output). `output` may be this
  /// rank's own place in `input`.
  [[nodiscard]] Work reduce_scatter(View input, MutView output, ReduceOptions options = {});
  /// x on every rank = x of rank `root`.
  [[nodiscard]] Work broadcast(MutView x, int root, Keep keep = nullptr);
  /// Part r of input goes to rank r; part r of output comes from rank r. Equal counts, not in place.
  [[nodiscard]] Work all_to_all(View input, MutView output, Keep keep = nullptr);
  /// Messages between two ranks with the same tag (0 to 63) arrive in order.
  [[nodiscard]] Work send(View x, int destination, int tag = 0, Keep keep = nullptr);
  [[nodiscard]] Work recv(MutView x, int source, int tag = 0, Keep keep = nullptr);
  /// send(x, destination) and recv(y, source) as one operation, which no order of the ranks' calls can block: each side
  /// pairs with a send, recv or send_recv of the other rank. Sizes may differ; not in place.
  [[nodiscard]] Work send_recv(View x, int destination, MutView y, int source, int tag = 0, Keep keep = nullptr);
  /// output = op over lower ranks of input; on rank 0 the operation's identity. Not in place.
  [[nodiscard]] Work exclusive_scan(View input, MutView output, ReduceOptions options = {});
  [[nodiscard]] Work barrier();

  /// Blocking. Ranks of one colour form a group, ordered by (key, rank). All ranks call it in the same order.
  std::unique_ptr<Communicator> split(int color, int key, std::string name, Priority priority = Priority::urgent) {
    return split(color, key, std::move(name), priority, {device_, nullptr});
  }
  /// As split(), with members that also reach memory of a device.
  std::unique_ptr<Communicator> split(int color, int key, std::string name, Priority priority,
                                      const DeviceReach& reach);

 private:
  Work start(Collective what, Keep keep);
  void check(View view, const char* what) const;
  void check_together(View input, View output, const char* what) const;
  void copy_alone(View input, MutView output);
  void check_peer(int peer, const char* what) const;
  void check_message(View x, int peer, int tag, const char* what) const;
  void check_wire(DType dtype, const ReduceOptions& options) const;

  std::unique_ptr<Transport> transport_;
  CommLog& log_;
  std::string name_;
  Priority priority_;
  int rank_ = 0;
  int size_ = 1;
  std::vector<int> members_;
  Device* device_ = nullptr;
  std::shared_ptr<GroupRecord> record_;
  std::uint64_t next_sequence_ = 0;
  std::map<std::pair<int, int>, std::uint64_t> sent_;  ///< messages by peer and tag
  std::map<std::pair<int, int>, std::uint64_t> received_;
};

/// A group of this rank alone, which has `world_rank` in the world.
std::unique_ptr<Communicator> make_self_communicator(CommLog& log, std::string name = "self", int world_rank = 0,
                                                     Device* device = nullptr);

}  // namespace weft
