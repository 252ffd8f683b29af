// What every kernel takes first: where it runs, its scratch memory and its backend's handles.
#pragma once
#include <cstddef>
#include <memory>

#include "core/base/memory.hpp"
#include "core/tensor/view.hpp"

namespace weft {

struct KernelTable;

/// An opaque device stream; null is the host.
struct Stream {
  void* handle = nullptr;
};

/// Library handles and caches of one backend (cached primitives, cuBLASLt handles, …); made by the backend.
class BackendState {
 public:
  virtual ~BackendState() = default;
};

/// One in-order queue of kernels on one device; a backend may derive its own from it. Not shared between threads.
class ExecContext {
 public:
  ExecContext(const KernelTable& kernels, Allocator& memory, int threads)
      : kernels_(kernels), memory_(memory), threads_(threads) {}
  virtual ~ExecContext();
  ExecContext(const ExecContext&) = delete;
  ExecContext& operator=(const ExecContext&) = delete;

  DeviceId device() const { return memory_.device(); }
  const KernelTable& kernels() const { return kernels_; }
  Allocator& memory() { return memory_; }
  /// CPU threads that a kernel may use.
  int threads() const { return threads_; }
  Stream stream;
  std::unique_ptr<BackendState> backend;
  /// Kernels that no backend bound do nothing: a pass is run for the memory that it takes.
  bool counts_only = false;
  /// The most bytes of logits that a cross-entropy holds at once (at least one row of them); 0: what suits the device.
  std::size_t logits_bytes = 0;

  /// At least `bytes` of 64-byte aligned scratch, valid until the next call; it grows to the largest request and stays.
  void* scratch(std::size_t bytes);
  /// Gives the scratch back: what is recorded next, or comes after a recording, must not share it.
  void drop_scratch();

 private:
  const KernelTable& kernels_;
  Allocator& memory_;
  int threads_;
  void* scratch_ = nullptr;
  std::size_t scratch_bytes_ = 0;
};

}  // namespace weft
