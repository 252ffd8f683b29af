// NCCL over threads of one process: ranks meet in host memory. Communicators are made as with blocking = 0, calls of a group
// start together, and a call blocks until its peers came (a send until its message was taken), which is stricter than a stream.
#include "tests/unit/cuda/fake_nccl.hpp"

#include <atomic>
#include <condition_variable>
#include <cstring>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "core/cuda/nccl/api.hpp"

using weft::cuda::NcclConfig;
using weft::cuda::NcclId;
using weft::cuda::NcclReduce;
using weft::cuda::NcclStatus;
using weft::cuda::NcclStream;
using weft::cuda::NcclType;

namespace {

struct World {
  std::mutex mutex;
  std::condition_variable changed;
  int size = 0, joined = 0;
  std::map<std::pair<int, int>, std::deque<std::vector<char>>> messages;  ///< by sender and receiver
};

std::mutex worlds_mutex;
std::map<int, std::shared_ptr<World>> worlds;
std::atomic<int> next_id = 1, broken_rank = -1, alive_count = 0, aborted_count = 0;

thread_local int depth = 0;
thread_local std::vector<std::function<void()>> sends, receives, ends;

std::size_t bytes_of(NcclType type) {
  if (type == NcclType::u8) return 1;
  return type == NcclType::i32 || type == NcclType::f32 ? 4 : 8;
}

template <class T>
void combine(NcclReduce op, void* into, const void* from, std::size_t count) {
  auto* a = static_cast<T*>(into);
  const auto* b = static_cast<const T*>(from);
  for (std::size_t i = 0; i < count; ++i) {
    if (op == NcclReduce::sum) a[i] = static_cast<T>(a[i] + b[i]);
    if (op == NcclReduce::max) a[i] = std::max(a[i], b[i]);
    if (op == NcclReduce::min) a[i] = std::min(a[i], b[i]);
  }
}

void combine(NcclType type, NcclReduce op, void* into, const void* from, std::size_t count) {
  switch (type) {
    case NcclType::u8: return combine<unsigned char>(op, into, from, count);
    case NcclType::i32: return combine<std::int32_t>(op, into, from, count);
    case NcclType::i64: return combine<std::int64_t>(op, into, from, count);
    case NcclType::f32: return combine<float>(op, into, from, count);
    case NcclType::f64: return combine<double>(op, into, from, count);
  }
}

}  // namespace

namespace weft::cuda {
struct NcclCommOpaque {
  std::shared_ptr<World> world;
  int rank = 0;
  NcclStatus error = NcclStatus::success;

  void put(int to, const void* data, std::size_t bytes) const {
    const auto* first = static_cast<const char*>(data);
    const std::lock_guard lock(world->mutex);
    world->messages[{rank, to}].emplace_back(first, first + bytes);
    world->changed.notify_all();
  }
  void wait_taken(int to) const {
    std::unique_lock lock(world->mutex);
    world->changed.wait(lock, [&] { return world->messages[{rank, to}].empty(); });
  }
  std::vector<char> take(int from) const {
    std::unique_lock lock(world->mutex);
    auto& queue = world->messages[{from, rank}];
    world->changed.wait(lock, [&] { return !queue.empty(); });
    std::vector<char> message = std::move(queue.front());
    queue.pop_front();
    world->changed.notify_all();
    return message;
  }
  /// Every rank's `bytes`, in rank order.
  std::vector<std::vector<char>> exchange(const void* data, std::size_t bytes) const {
    for (int to = 0; to < world->size; ++to) put(to, data, bytes);
    std::vector<std::vector<char>> all;
    for (int from = 0; from < world->size; ++from) all.push_back(take(from));
    return all;
  }
};
}  // namespace weft::cuda

using weft::cuda::NcclComm;

namespace {

bool breaks(NcclComm comm) {
  if (comm->rank == broken_rank) comm->error = NcclStatus::remote_error;
  return comm->error != NcclStatus::success;
}

/// The op over ranks, in rank order.
std::vector<char> reduced(NcclComm comm, const void* input, std::size_t count, NcclType type, NcclReduce op) {
  auto all = comm->exchange(input, count * bytes_of(type));
  for (std::size_t from = 1; from < all.size(); ++from) combine(type, op, all[0].data(), all[from].data(), count);
  return all[0];
}

void end_group() {
  for (const auto& send : sends) send();
  for (const auto& receive : receives) receive();
  for (const auto& end : ends) end();
  sends.clear();
  receives.clear();
  ends.clear();
}

}  // namespace

extern "C" {

extern const FakeNccl fake_nccl;
const FakeNccl fake_nccl = {[](int rank) { return broken_rank.exchange(rank); }, [] { return alive_count.load(); },
                            [] { return aborted_count.load(); }};

NcclStatus ncclGetVersion(int* version) {
  *version = 22800;
  return NcclStatus::success;
}
const char* ncclGetErrorString(NcclStatus status) {
  return status == NcclStatus::remote_error ? "remote process exited" : "another error";
}
const char* ncclGetLastError(NcclComm) { return "the fake said so"; }
NcclStatus ncclGetUniqueId(NcclId* id) {
  const int number = next_id++;
  std::memset(id->bytes, 0, sizeof id->bytes);
  std::memcpy(id->bytes, &number, sizeof number);
  return NcclStatus::success;
}
NcclStatus ncclCommInitRankConfig(NcclComm* comm, int size, NcclId id, int rank, NcclConfig* config) {
  if (config->magic != 0xcafebeef || config->size != sizeof(NcclConfig) || config->blocking != 0 || rank >= size)
    return static_cast<NcclStatus>(4);
  int number = 0;
  std::memcpy(&number, id.bytes, sizeof number);
  const std::lock_guard lock(worlds_mutex);
  auto& world = worlds[number];
  if (!world) world = std::make_shared<World>();
  const std::lock_guard inner(world->mutex);
  world->size = size;
  ++world->joined;
  ++alive_count;
  *comm = new weft::cuda::NcclCommOpaque{world, rank};
  return NcclStatus::in_progress;
}
NcclStatus ncclCommGetAsyncError(NcclComm comm, NcclStatus* status) {
  const std::lock_guard lock(comm->world->mutex);
  *status = comm->world->joined < comm->world->size ? NcclStatus::in_progress : comm->error;
  return NcclStatus::success;
}
NcclStatus ncclCommFinalize(NcclComm comm) { return comm->error; }
NcclStatus ncclCommDestroy(NcclComm comm) {
  --alive_count;
  delete comm;
  return NcclStatus::success;
}
NcclStatus ncclCommAbort(NcclComm comm) {
  ++aborted_count;
  return ncclCommDestroy(comm);
}
NcclStatus ncclAllReduce(const void* in, void* out, std::size_t count, NcclType type, NcclReduce op, NcclComm comm,
                         NcclStream) {
  if (breaks(comm)) return NcclStatus::success;
  const auto result = reduced(comm, in, count, type, op);
  std::memcpy(out, result.data(), result.size());
  return NcclStatus::success;
}
NcclStatus ncclReduceScatter(const void* in, void* out, std::size_t count, NcclType type, NcclReduce op, NcclComm comm,
                             NcclStream) {
  const std::size_t part = count * bytes_of(type);
  const auto result = reduced(comm, in, count * static_cast<std::size_t>(comm->world->size), type, op);
  std::memcpy(out, result.data() + static_cast<std::size_t>(comm->rank) * part, part);
  return NcclStatus::success;
}
NcclStatus ncclAllGather(const void* in, void* out, std::size_t count, NcclType type, NcclComm comm, NcclStream) {
  if (breaks(comm)) return NcclStatus::in_progress;
  char* at = static_cast<char*>(out);
  for (const auto& part : comm->exchange(in, count * bytes_of(type))) {
    std::memcpy(at, part.data(), part.size());
    at += part.size();
  }
  return NcclStatus::success;
}
NcclStatus ncclBroadcast(const void* in, void* out, std::size_t count, NcclType type, int root, NcclComm comm,
                         NcclStream) {
  const auto all = comm->exchange(in, count * bytes_of(type));
  const auto& part = all[static_cast<std::size_t>(root)];
  std::memcpy(out, part.data(), part.size());
  return NcclStatus::success;
}
NcclStatus ncclSend(const void* data, std::size_t count, NcclType type, int peer, NcclComm comm, NcclStream) {
  sends.push_back([=] { comm->put(peer, data, count * bytes_of(type)); });
  ends.push_back([=] { comm->wait_taken(peer); });
  if (depth == 0) end_group();
  return NcclStatus::success;
}
NcclStatus ncclRecv(void* data, std::size_t count, NcclType type, int peer, NcclComm comm, NcclStream) {
  receives.push_back([=] {
    const auto message = comm->take(peer);
    if (message.size() == count * bytes_of(type)) std::memcpy(data, message.data(), message.size());
  });
  if (depth == 0) end_group();
  return NcclStatus::success;
}
NcclStatus ncclGroupStart() {
  ++depth;
  return NcclStatus::success;
}
NcclStatus ncclGroupEnd() {
  if (--depth == 0) end_group();
  return NcclStatus::success;
}
}
