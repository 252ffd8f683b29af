// One NCCL communicator: made without blocking, so that a rank that never comes ends in an error and not in a hang.
#pragma once
#include <cstdint>
#include <memory>
#include <string>

#include "core/cuda/nccl/api.hpp"
#include "core/tensor/view.hpp"

namespace weft::cuda {

struct NcclPlace {
  int rank = 0;  ///< in the group
  int size = 1;
  std::string group;  ///< its name, for messages
  std::string host;   ///< this rank's, for messages
};

/// Calls enqueue on `stream` and return; views are contiguous device memory with the counts that NCCL wants. All calls of a
/// group come from one thread. Any dtype moves; f32, f64, i32, i64 and u8 reduce (NCCL would round a sum of bf16 at each
/// hop). Each call throws Error that names rank, host and group when it cannot be enqueued or the group has failed.
class NcclGroup {
 public:
  /// Joins the group of `id`, which rank 0 made and gave to all. Throws Error after `timeout` seconds without the others.
  NcclGroup(std::shared_ptr<const Nccl> api, const NcclId& id, NcclPlace place, double timeout);
  /// Aborts a group that has failed; otherwise waits a bounded time for the end of what was enqueued.
  ~NcclGroup();
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;

  void all_reduce(MutView x, NcclReduce op, NcclStream stream);
  void all_gather(View input, MutView output, NcclStream stream);
  void reduce_scatter(View input, MutView output, NcclReduce op, NcclStream stream);
  void broadcast(MutView x, int root, NcclStream stream);
  void all_to_all(View input, MutView output, NcclStream stream);
  void send(View x, int destination, NcclStream stream);
  void recv(MutView x, int source, NcclStream stream);
  /// Both as one operation: a ring of them cannot block itself.
  void send_recv(View x, int destination, MutView y, int source, NcclStream stream);

  /// Looks for an error that came after a call had returned; aborts the group and throws Error if there is one.
  void poll();
  /// Ends the group's kernels wherever they are, on this rank; later calls throw.
  void give_up();
  bool failed() const { return failed_; }

 private:
  template <class Call>
  void run(const char* name, Call call);
  template <class Calls>
  void run_grouped(const char* name, Calls calls);
  /// Waits until NCCL has taken a call that it answered with "in progress".
  void settle(const char* name);
  [[noreturn]] void fail_group(const char* name, const std::string& reason);

  std::shared_ptr<const Nccl> api_;
  NcclPlace place_;
  double timeout_;
  NcclComm comm_ = nullptr;
  bool failed_ = false;
};

}  // namespace weft::cuda
