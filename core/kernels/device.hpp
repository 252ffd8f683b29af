// A device of this process: its memory, its kernels, and the queue that they run on.
#pragma once
#include <cstddef>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "core/base/error.hpp"
#include "core/kernels/device_links.hpp"
#include "core/kernels/exec.hpp"
#include "core/kernels/product_table.hpp"

namespace weft {

/// A point in a queue, which other queues and the host can wait for. It may be recorded again and again.
class Event {
 public:
  virtual ~Event() = default;
  /// Marks what the queue has been given so far.
  virtual void record(ExecContext& queue) = 0;
  /// What is given to `queue` from now on runs after the mark; the host goes on.
  virtual void hold(ExecContext& queue) = 0;
  /// Whether the mark was reached; true before the first record(). Throws Error when the device has failed.
  virtual bool passed() = 0;
  /// Blocks the host until it is.
  virtual void wait() = 0;
};

/// Work that was recorded once and can be enqueued again as a whole.
class WorkGraph {
 public:
  virtual ~WorkGraph() = default;
  virtual void launch() = 0;
};

struct DeviceFacts {
  std::string name;                    ///< "AMD EPYC, x86-64-v3", "NVIDIA H200, sm_90"
  bool fast_bf16 = false;              ///< whether bf16 is worth computing in
  std::size_t memory_bytes = 0;        ///< 0: the host's
  std::string pci;                     ///< "0000:41:00.0"; empty for the host
  std::int64_t product_size = 1024;    ///< edge of a square matrix product that keeps all of it busy
  std::string products;                ///< the rule that matrix products' algorithms go by; empty: they have one
  std::vector<std::string> libraries;  ///< what its kernels call, with versions, and what is missing
  std::vector<std::string> warnings;   ///< what was asked for and is not done, each a line for people
};

class Device {
 public:
  virtual ~Device() = default;

  virtual const DeviceFacts& facts() const = 0;
  /// Every thread but the one that opened the device calls it once before it uses the device's queues, events or memory.
  virtual void enter_thread() = 0;
  /// The queue that computes.
  virtual ExecContext& exec() = 0;
  Allocator& memory() { return exec().memory(); }
  /// Host memory that the device copies from and to by itself (pinned).
  virtual Allocator& host_memory() = 0;
  /// Another queue beside exec(), with scratch and library handles of its own.
  virtual std::unique_ptr<ExecContext> make_queue() = 0;
  virtual std::unique_ptr<Event> make_event() = 0;

  /// Whether what the host enqueues runs later, so that the host can run ahead of it.
  virtual bool asynchronous() const = 0;
  /// Records what `work` enqueues on exec(), and on queues that wait for it, without running it. Null where the device
  /// cannot; `work` has not been called then. What `work` allocates stays reserved as long as the graph lives.
  virtual std::unique_ptr<WorkGraph> capture(const std::function<void()>& work) = 0;
  /// Which recording what is enqueued now becomes part of, from 1 on; 0: none.
  virtual std::uint64_t recording() const { return 0; }

  /// The matrix products that DeviceOptions::measure_products measured; empty where they have one algorithm.
  virtual ProductTable measured_products() { return {}; }

  /// Throws Error that says what is missing where the device has no links of its own.
  virtual DeviceLinks& links() { fail("{} exchanges memory through the host alone", facts().name); }
};

/// Waits until all that `queue` was given has run.
inline void synchronize(Device& device, ExecContext& queue) {
  const std::unique_ptr<Event> event = device.make_event();
  event->record(queue);
  event->wait();
}
inline void synchronize(Device& device) { synchronize(device, device.exec()); }

}  // namespace weft
