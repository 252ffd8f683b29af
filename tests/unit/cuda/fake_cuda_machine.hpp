// The device behind the stand-in for the CUDA runtime: blocks of host memory, streams as lists of work, captures as lists
// that are kept.
#pragma once
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <set>

#include "tests/unit/cuda/fake_cuda.hpp"

namespace weft::test {

using Work = std::function<void()>;
struct FakeStream;
/// How much of each stream's captured work comes before a point.
using Clock = std::map<const FakeStream*, int>;

struct FakeCapture {
  FakeStream* origin = nullptr;
  std::vector<Work> work;
  std::map<const FakeStream*, Clock> clocks;  ///< of the streams that take part
  bool invalid = false, ended = false;
};

struct FakeStream {
  std::deque<Work> waiting;
  std::uint64_t added = 0, done = 0;
  std::shared_ptr<FakeCapture> capture;
};

struct FakeEvent {
  std::shared_ptr<FakeStream> stream;  ///< null: not recorded
  std::uint64_t position = 0;
  std::shared_ptr<FakeCapture> capture;  ///< in which it was recorded last
  Clock clock;
  bool timed = false;
};

struct FakeGraph {
  std::vector<Work> work;
};

struct FakeKernel {
  std::string name;
  std::size_t most_shared = std::size_t{48} << 10;
};

/// All calls hold its mutex.
class FakeMachine {
 public:
  cudaError_t allocate(void** data, std::size_t bytes, bool pinned);
  cudaError_t deallocate(void* data, bool pinned);
  std::size_t used(bool pinned) const { return used_[pinned ? 1 : 0]; }
  int count_blocks(bool pinned) const { return static_cast<int>(blocks_[pinned ? 1 : 0].size()); }
  cudaError_t copy(void* to, const void* from, std::size_t bytes, cudaMemcpyKind kind, cudaStream_t stream);

  cudaError_t enqueue(cudaStream_t stream, Work work);
  void run(FakeStream& stream, std::uint64_t until);
  void run_all();
  /// What waiting for a stream or an event means while it is captured: it breaks the capture.
  cudaError_t refuse_in_capture(const std::shared_ptr<FakeCapture>& capture, cudaError_t status);

  cudaError_t record(cudaEvent_t event, cudaStream_t stream);
  cudaError_t hold(cudaStream_t stream, cudaEvent_t event);
  cudaError_t begin_capture(cudaStream_t stream);
  cudaError_t end_capture(cudaStream_t stream, cudaGraph_t* graph);
  cudaError_t launch(const void* function, std::int64_t blocks, int threads, std::size_t shared_bytes,
                     cudaStream_t stream);

  std::shared_ptr<FakeStream> find(cudaStream_t stream);
  template <class T, class Handle>
  Handle add(std::map<void*, std::shared_ptr<T>>& all, std::shared_ptr<T> made) {
    void* key = made.get();
    all.emplace(key, std::move(made));
    return static_cast<Handle>(key);
  }
  template <class T>
  std::shared_ptr<T> find(std::map<void*, std::shared_ptr<T>>& all, void* handle);
  /// Ends a handle.
  template <class T>
  cudaError_t end(std::map<void*, std::shared_ptr<T>>& all, void* handle, const char* what);

  std::recursive_mutex mutex;
  FakeCuda face;
  cudaError_t lost = cudaSuccess;  ///< what every call gives since the device is lost
  std::map<void*, std::shared_ptr<FakeStream>> streams;
  std::map<void*, std::shared_ptr<FakeEvent>> events;
  std::map<void*, std::shared_ptr<FakeGraph>> graphs, executables;
  std::map<const void*, FakeKernel> kernels;
  /// The fault of this call, if it is its turn.
  cudaError_t failure(const char* call);

 private:
  bool holds(const void* data, std::size_t bytes, bool pinned) const;
  std::map<const char*, std::size_t> blocks_[2];  ///< by address; of the device, pinned
  std::size_t used_[2] = {};
};

FakeMachine& fake_machine();

template <class T>
std::shared_ptr<T> FakeMachine::find(std::map<void*, std::shared_ptr<T>>& all, void* handle) {
  const auto found = all.find(handle);
  return found == all.end() ? nullptr : found->second;
}

template <class T>
cudaError_t FakeMachine::end(std::map<void*, std::shared_ptr<T>>& all, void* handle, const char* what) {
  if (all.erase(handle) == 1) return cudaSuccess;
  face.faults_of_the_caller.push_back(std::string(what) + " that does not live is ended");
  return cudaErrorInvalidResourceHandle;
}

}  // namespace weft::test
