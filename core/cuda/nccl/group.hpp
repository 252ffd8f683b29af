// One NCCL communicator.
#pragma once
#include <functional>
#include <memory>
#include <mutex>
#include <string>

#include "core/cuda/nccl/api.hpp"
#include "core/kernels/device_links.hpp"

namespace weft::cuda {

/// A queue's stream is its ExecContext::stream. The communicator blocks: one that does not would start a thread for each
/// call.
class NcclGroup final : public DeviceGroup {
 public:
  /// Joins from a thread of its own, which calls `enter_thread` first: a rank that never comes ends in an Error after
  /// `timeout` seconds and not in a hang.
  NcclGroup(std::shared_ptr<const Nccl> api, const LinkId& id, LinkPlace place, double timeout,
            const std::function<void()>& enter_thread);
  /// Aborts a group that has failed; otherwise waits for the end of what was enqueued.
  ~NcclGroup() override;
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;

  void all_reduce(ExecContext& queue, MutView x, ReduceOp op) override;
  void all_gather(ExecContext& queue, View input, MutView output) override;
  void reduce_scatter(ExecContext& queue, View input, MutView output, ReduceOp op) override;
  void broadcast(ExecContext& queue, MutView x, int root) override;
  void all_to_all(ExecContext& queue, View input, MutView output) override;
  void exchange(ExecContext& queue, std::span<const LinkMessage> messages) override;
  void poll() override;

 private:
  template <class Call>
  void run(const char* name, Call call);
  template <class Calls>
  void run_grouped(const char* name, Calls calls);
  [[noreturn]] void fail_group(const std::string& reason);

  std::shared_ptr<const Nccl> api_;
  LinkPlace place_;
  std::mutex mutex_;
  NcclComm comm_ = nullptr;  ///< null when the group has failed
};

/// Groups over one opened library.
class NcclLinks final : public DeviceLinks {
 public:
  /// `enter_thread` lets a new thread use the device.
  NcclLinks(std::shared_ptr<const Nccl> api, std::function<void()> enter_thread)
      : api_(std::move(api)), enter_thread_(std::move(enter_thread)) {}
  LinkId make_id() override;
  std::unique_ptr<DeviceGroup> join(const LinkId& id, const LinkPlace& place, double timeout) override {
    return std::make_unique<NcclGroup>(api_, id, place, timeout, enter_thread_);
  }

 private:
  std::shared_ptr<const Nccl> api_;
  std::function<void()> enter_thread_;
};

}  // namespace weft::cuda
