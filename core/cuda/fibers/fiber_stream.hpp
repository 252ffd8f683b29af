// What Stream::handle points at in a queue of a fiber device: how a library that stands in for a vendor's gives it work.
#pragma once
#include <functional>

namespace weft::cuda::fibers {

class FiberStream {
 public:
  virtual ~FiberStream() = default;
  /// `work` may wait for other processes.
  virtual void enqueue(std::function<void()> work) = 0;
};

}  // namespace weft::cuda::fibers
