// Streams, events and graphs as owners, and the context's stream as CUDA's.
#pragma once
#include <cuda_runtime.h>

#include "core/cuda/error.hpp"
#include "core/cuda/handle.hpp"
#include "core/kernels/exec.hpp"

namespace weft::cuda {

/// Ends a handle and never throws.
template <auto destroy>
struct Quietly {
  template <class T>
  void operator()(T handle) const noexcept {
    ignore(destroy(handle));
  }
};

using StreamHandle = Handle<cudaStream_t, Quietly<&cudaStreamDestroy>>;
using EventHandle = Handle<cudaEvent_t, Quietly<&cudaEventDestroy>>;
using GraphHandle = Handle<cudaGraph_t, Quietly<&cudaGraphDestroy>>;
using GraphExecHandle = Handle<cudaGraphExec_t, Quietly<&cudaGraphExecDestroy>>;

inline cudaStream_t stream_of(const ExecContext& exec) { return static_cast<cudaStream_t>(exec.stream.handle); }

/// Not ordered against the default stream.
inline StreamHandle make_stream(int priority = 0) {
  cudaStream_t stream = nullptr;
  check(cudaStreamCreateWithPriority(&stream, cudaStreamNonBlocking, priority), "cudaStreamCreateWithPriority");
  return StreamHandle(stream);
}

/// Without timing; a host that waits for it sleeps, since communication threads want its core.
inline EventHandle make_event() {
  cudaEvent_t event = nullptr;
  check(cudaEventCreateWithFlags(&event, cudaEventDisableTiming | cudaEventBlockingSync), "cudaEventCreateWithFlags");
  return EventHandle(event);
}

}  // namespace weft::cuda
