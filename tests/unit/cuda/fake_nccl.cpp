// NCCL over threads or processes of one machine: ranks send each other datagrams through sockets. Calls of a group start
// together, and a call ends when its peers came (a send when its message was taken). On a null stream it blocks the caller,
// which is stricter than a stream; another is a FiberStream.
//   WEFT_FAKE_NCCL_MEET=1           a group's end in order waits for all its members
//   WEFT_FAKE_NCCL_FAIL=RANK@CALLS  that rank of each group has an asynchronous error after so many calls
#include "tests/unit/cuda/fake_nccl.hpp"

#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <functional>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "core/cuda/fibers/fiber_stream.hpp"
#include "core/cuda/nccl/api.hpp"

using weft::cuda::NcclConfig;
using weft::cuda::NcclId;
using weft::cuda::NcclReduce;
using weft::cuda::NcclStatus;
using weft::cuda::NcclStream;
using weft::cuda::NcclType;

namespace {

constexpr std::size_t chunk = 32 << 10;
constexpr std::chrono::seconds join_patience{20};

enum class Kind : int { hello, data, taken, parted, bye };
struct Header {
  Kind kind = Kind::hello;
  int from = 0;
  std::size_t total = 0, offset = 0;
};

std::atomic<int> broken_rank = -1, alive_count = 0, aborted_count = 0;
std::atomic<const char*> refused_call = nullptr;
std::atomic<NcclStatus> refusal = NcclStatus::success;

bool refuses(const char* call) {
  const char* refused = refused_call;
  return refused && std::strcmp(refused, call) == 0;
}

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

/// One rank of a group.
class Member {
 public:
  Member(std::string group, int rank, int size) : group_(std::move(group)), rank_(rank), size_(size) {
    socket_ = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    const Address own = address(rank);
    bound_ = bind(socket_, own.as(), own.length) == 0;
    receiver_ = std::thread([this] { receive(); });
  }
  ~Member() {
    send(rank_, {Kind::bye, rank_}, nullptr, 0);
    receiver_.join();
    close(socket_);
  }

  int rank() const { return rank_; }
  int size() const { return size_; }

  /// Whether all came.
  bool join() {
    if (!bound_) return false;
    std::set<int> greeted = {rank_};
    const auto end = std::chrono::steady_clock::now() + join_patience;
    std::unique_lock lock(mutex_);
    while (static_cast<int>(greeted.size()) < size_ || static_cast<int>(came_.size()) < size_ - 1) {
      if (std::chrono::steady_clock::now() > end) return false;
      for (int peer = 0; peer < size_; ++peer)
        if (!greeted.contains(peer) && send(peer, {Kind::hello, rank_}, nullptr, 0)) greeted.insert(peer);
      changed_.wait_for(lock, std::chrono::milliseconds(1));
    }
    return true;
  }

  /// Waits for the others, for so long that whoever runs it takes it for a hang.
  void part() {
    constexpr std::chrono::seconds patience{120};
    for (int peer = 0; peer < size_; ++peer)
      if (peer != rank_) send(peer, {Kind::parted, rank_}, nullptr, 0);
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, patience, [&] { return static_cast<int>(parted_.size()) == size_ - 1; });
  }

  void put(int to, const void* data, std::size_t bytes) {
    const auto* first = static_cast<const char*>(data);
    {
      const std::lock_guard lock(mutex_);
      ++unanswered_[to];
      if (to == rank_) inbox_[rank_].emplace_back(first, first + bytes);
    }
    if (to == rank_) return;
    for (std::size_t at = 0; at < bytes; at += chunk)
      send(to, {Kind::data, rank_, bytes, at}, first + at, std::min(chunk, bytes - at));
  }
  void wait_taken(int to) {
    std::unique_lock lock(mutex_);
    changed_.wait(lock, [&] { return unanswered_[to] == 0; });
  }
  std::vector<char> take(int from) {
    std::unique_lock lock(mutex_);
    auto& queue = inbox_[from];
    changed_.wait(lock, [&] { return !queue.empty(); });
    std::vector<char> message = std::move(queue.front());
    queue.pop_front();
    if (from == rank_) --unanswered_[from];
    lock.unlock();
    if (from != rank_) send(from, {Kind::taken, rank_}, nullptr, 0);
    return message;
  }
  /// Every rank's `bytes`, in rank order.
  std::vector<std::vector<char>> exchange(const void* data, std::size_t bytes) {
    for (int to = 0; to < size_; ++to) put(to, data, bytes);
    std::vector<std::vector<char>> all;
    for (int from = 0; from < size_; ++from) all.push_back(take(from));
    return all;
  }

 private:
  struct Address {
    sockaddr_un name{};
    socklen_t length = 0;
    const sockaddr* as() const { return reinterpret_cast<const sockaddr*>(&name); }
  };
  /// In the abstract name space: it goes with its process.
  Address address(int rank) const {
    Address made;
    made.name.sun_family = AF_UNIX;
    const std::string text = "weft-nccl-" + group_ + "-" + std::to_string(rank);
    std::memcpy(made.name.sun_path + 1, text.data(), text.size());
    made.length = static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + 1 + text.size());
    return made;
  }

  bool send(int to, Header header, const char* data, std::size_t bytes) {
    const Address peer = address(to);
    iovec parts[] = {{&header, sizeof header}, {const_cast<char*>(data), bytes}};
    msghdr message{};
    message.msg_name = const_cast<sockaddr_un*>(&peer.name);
    message.msg_namelen = peer.length;
    message.msg_iov = parts;
    message.msg_iovlen = 2;
    ssize_t sent = 0;
    do sent = sendmsg(socket_, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent >= 0;
  }

  void receive() {
    std::vector<char> buffer(sizeof(Header) + chunk);
    std::map<int, std::vector<char>> partial;
    for (;;) {
      const ssize_t got = recv(socket_, buffer.data(), buffer.size(), 0);
      if (got < static_cast<ssize_t>(sizeof(Header))) continue;
      Header header;
      std::memcpy(&header, buffer.data(), sizeof header);
      if (header.kind == Kind::bye) return;
      const std::lock_guard lock(mutex_);
      if (header.kind == Kind::hello) came_.insert(header.from);
      if (header.kind == Kind::parted) parted_.insert(header.from);
      if (header.kind == Kind::taken) --unanswered_[header.from];
      if (header.kind == Kind::data) {
        auto& whole = partial[header.from];
        whole.insert(whole.end(), buffer.begin() + sizeof header, buffer.begin() + got);
        if (whole.size() == header.total) inbox_[header.from].push_back(std::exchange(whole, {}));
      }
      changed_.notify_all();
    }
  }

  std::string group_;
  int rank_, size_, socket_ = -1;
  bool bound_ = false;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::set<int> came_, parted_;
  std::map<int, std::deque<std::vector<char>>> inbox_;  ///< by sender
  std::map<int, int> unanswered_;                       ///< messages that the peer has not taken
  std::thread receiver_;
};

struct Message {
  Member* member;
  int peer;
  const void* sent;
  void* received;
  std::size_t bytes;
};
thread_local int depth = 0;
thread_local std::vector<Message> messages;
thread_local NcclStream messages_stream = nullptr;
thread_local bool group_broken = false;  ///< nothing of it is launched

NcclStatus break_group() {
  group_broken = depth > 0;
  return refusal;
}

void exchange_all(const std::vector<Message>& all) {
  for (const Message& m : all)
    if (m.sent) m.member->put(m.peer, m.sent, m.bytes);
  for (const Message& m : all) {
    if (!m.received) continue;
    const auto got = m.member->take(m.peer);
    if (got.size() == m.bytes) std::memcpy(m.received, got.data(), got.size());
  }
  for (const Message& m : all)
    if (m.sent) m.member->wait_taken(m.peer);
}

void give(NcclStream stream, std::function<void()> work) {
  if (stream)
    static_cast<weft::cuda::fibers::FiberStream*>(stream)->enqueue(std::move(work));
  else
    work();
}

NcclStatus message(NcclStream stream, Message one) {
  messages_stream = stream;
  messages.push_back(one);
  if (depth == 0) give(stream, [all = std::exchange(messages, {})] { exchange_all(all); });
  return NcclStatus::success;
}

}  // namespace

namespace weft::cuda {
struct NcclCommOpaque {
  Member member;
  std::atomic<NcclStatus> error = NcclStatus::success;
  int calls = 0;
  bool joined = false;
};
}  // namespace weft::cuda

using weft::cuda::NcclComm;

namespace {

/// Whether this call has an error, which async_error tells later.
bool breaks(NcclComm comm) {
  int rank = -1, calls = 0;
  const char* plan = std::getenv("WEFT_FAKE_NCCL_FAIL");
  const bool planned = plan && std::sscanf(plan, "%d@%d", &rank, &calls) == 2 && comm->member.rank() == rank;
  if (comm->member.rank() == broken_rank || (planned && comm->calls >= calls)) comm->error = NcclStatus::remote_error;
  ++comm->calls;
  return comm->error != NcclStatus::success;
}

/// The op over ranks, in rank order.
std::vector<char> reduced(Member& member, const void* input, std::size_t count, NcclType type, NcclReduce op) {
  auto all = member.exchange(input, count * bytes_of(type));
  for (std::size_t from = 1; from < all.size(); ++from) combine(type, op, all[0].data(), all[from].data(), count);
  return all[0];
}

}  // namespace

extern "C" {

extern const FakeNccl fake_nccl;
const FakeNccl fake_nccl = {[](int rank) { return broken_rank.exchange(rank); }, [] { return alive_count.load(); },
                            [] { return aborted_count.load(); },
                            [](const char* name, int status) {
                              refusal = static_cast<NcclStatus>(status);
                              refused_call = name;
                            }};

NcclStatus ncclGetVersion(int* version) {
  *version = 22800;
  return NcclStatus::success;
}
const char* ncclGetErrorString(NcclStatus status) {
  static const char* const texts[] = {"no error",
                                      "unhandled cuda error",
                                      "unhandled system error",
                                      "internal error",
                                      "invalid argument",
                                      "invalid usage",
                                      "remote process exited or there was a network error"};
  const auto at = static_cast<std::size_t>(status);
  return at < std::size(texts) ? texts[at] : "unknown result code";
}
const char* ncclGetLastError(NcclComm) { return "the fake said so"; }
NcclStatus ncclGetUniqueId(NcclId* id) {
  if (refuses("ncclGetUniqueId")) return refusal;
  static std::atomic<int> next = 1;
  std::memset(id->bytes, 0, sizeof id->bytes);
  std::snprintf(id->bytes, sizeof id->bytes, "%d-%d", getpid(), next++);
  return NcclStatus::success;
}
NcclStatus ncclCommInitRankConfig(NcclComm* comm, int size, NcclId id, int rank, NcclConfig* config) {
  if (refuses("ncclCommInitRankConfig")) return refusal;
  if (config->magic != 0xcafebeef || config->size != sizeof(NcclConfig) || config->blocking != 1 || rank >= size)
    return NcclStatus::invalid_argument;
  *comm = new weft::cuda::NcclCommOpaque{{id.bytes, rank, size}};
  if (!(*comm)->member.join()) return NcclStatus::remote_error;
  (*comm)->joined = true;
  ++alive_count;
  return NcclStatus::success;
}
NcclStatus ncclCommGetAsyncError(NcclComm comm, NcclStatus* status) {
  if (refuses("ncclCommGetAsyncError")) return refusal;
  *status = comm->error;
  return NcclStatus::success;
}
NcclStatus ncclCommFinalize(NcclComm comm) {
  if (refuses("ncclCommFinalize")) return refusal;
  if (std::getenv("WEFT_FAKE_NCCL_MEET")) comm->member.part();
  return comm->error;
}
NcclStatus ncclCommDestroy(NcclComm comm) {
  if (comm->joined) --alive_count;
  delete comm;
  return NcclStatus::success;
}
NcclStatus ncclCommAbort(NcclComm comm) {
  ++aborted_count;
  return ncclCommDestroy(comm);
}
NcclStatus ncclAllReduce(const void* in, void* out, std::size_t count, NcclType type, NcclReduce op, NcclComm comm,
                         NcclStream stream) {
  if (refuses("ncclAllReduce")) return refusal;
  if (breaks(comm)) return NcclStatus::success;
  give(stream, [=] {
    const auto result = reduced(comm->member, in, count, type, op);
    std::memcpy(out, result.data(), result.size());
  });
  return NcclStatus::success;
}
NcclStatus ncclReduceScatter(const void* in, void* out, std::size_t count, NcclType type, NcclReduce op, NcclComm comm,
                             NcclStream stream) {
  if (refuses("ncclReduceScatter")) return refusal;
  if (breaks(comm)) return NcclStatus::success;
  give(stream, [=] {
    Member& member = comm->member;
    const std::size_t part = count * bytes_of(type);
    const auto result = reduced(member, in, count * static_cast<std::size_t>(member.size()), type, op);
    std::memcpy(out, result.data() + static_cast<std::size_t>(member.rank()) * part, part);
  });
  return NcclStatus::success;
}
NcclStatus ncclAllGather(const void* in, void* out, std::size_t count, NcclType type, NcclComm comm,
                         NcclStream stream) {
  if (refuses("ncclAllGather")) return refusal;
  if (breaks(comm)) return NcclStatus::remote_error;
  give(stream, [=] {
    char* at = static_cast<char*>(out);
    for (const auto& part : comm->member.exchange(in, count * bytes_of(type))) {
      std::memcpy(at, part.data(), part.size());
      at += part.size();
    }
  });
  return NcclStatus::success;
}
NcclStatus ncclBroadcast(const void* in, void* out, std::size_t count, NcclType type, int root, NcclComm comm,
                         NcclStream stream) {
  if (refuses("ncclBroadcast")) return refusal;
  if (breaks(comm)) return NcclStatus::success;
  give(stream, [=] {
    const auto all = comm->member.exchange(in, count * bytes_of(type));
    const auto& part = all[static_cast<std::size_t>(root)];
    std::memcpy(out, part.data(), part.size());
  });
  return NcclStatus::success;
}
NcclStatus ncclSend(const void* data, std::size_t count, NcclType type, int peer, NcclComm comm, NcclStream stream) {
  if (refuses("ncclSend")) return break_group();
  return message(stream, {&comm->member, peer, data, nullptr, count * bytes_of(type)});
}
NcclStatus ncclRecv(void* data, std::size_t count, NcclType type, int peer, NcclComm comm, NcclStream stream) {
  if (refuses("ncclRecv")) return break_group();
  return message(stream, {&comm->member, peer, nullptr, data, count * bytes_of(type)});
}
NcclStatus ncclGroupStart() {
  if (refuses("ncclGroupStart")) return refusal;
  ++depth;
  return NcclStatus::success;
}
NcclStatus ncclGroupEnd() {
  const bool broken = --depth == 0 && (std::exchange(group_broken, false) || refuses("ncclGroupEnd"));
  if (broken) messages.clear();
  if (broken) return refusal;
  if (depth == 0) give(messages_stream, [all = std::exchange(messages, {})] { exchange_all(all); });
  return NcclStatus::success;
}
}
