// One stream of messages of a collective, written as a coroutine: it posts sends and receives on its lane and awaits
// them; the communication thread resumes it. Internal to the MPI transport.
#pragma once
#include <mpi.h>

#include <bitset>
#include <coroutine>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <exception>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace weft {

/// Collectives of one group that may be in flight at a time: tags repeat after so many.
inline constexpr int mpi_window = 64;
/// Message streams of one collective: data lanes, and the last one for comparing descriptors.
inline constexpr int mpi_lanes = 4;
inline constexpr int mpi_check_lane = mpi_lanes - 1;

/// A group takes two contexts, one for collectives and one for messages between pairs.
struct MpiGroup {
  std::string name;
  std::vector<int> members;  ///< world ranks
  int rank = 0;
  int context = 0;
  bool spans_hosts = false;
  std::bitset<mpi_window> in_flight;  ///< by sequence number modulo the window; of the communication thread

  int size() const { return static_cast<int>(members.size()); }
  int wrap(int member) const { return (member % size() + size()) % size(); }
};

inline int mpi_tag(int context, int slot, int lane) { return (context * mpi_window + slot) * mpi_lanes + lane; }

/// Buffers that collectives use one after another, so that their pages are touched once. Of the communication thread.
class ScratchPool {
 public:
  using Buffer = std::pair<std::unique_ptr<std::byte[]>, std::size_t>;
  Buffer take(std::size_t bytes);
  void give(Buffer buffer) { free_.push_back(std::move(buffer)); }

 private:
  std::vector<Buffer> free_;
};

class Flow {
 public:
  struct promise_type {
    std::exception_ptr error;
    Flow get_return_object() { return Flow(std::coroutine_handle<promise_type>::from_promise(*this)); }
    std::suspend_always initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { error = std::current_exception(); }
  };

  Flow(Flow&& other) noexcept : handle_(std::exchange(other.handle_, nullptr)) {}
  Flow& operator=(Flow&& other) noexcept {
    std::swap(handle_, other.handle_);
    return *this;
  }
  ~Flow() {
    if (handle_) handle_.destroy();
  }

  bool done() const { return handle_.done(); }
  void resume() { handle_.resume(); }
  const std::exception_ptr& error() const { return handle_.promise().error; }

 private:
  explicit Flow(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  std::coroutine_handle<promise_type> handle_;
};

class MessageBoard;

/// Messages of one tag with the members of a group. Only the communication thread uses it.
class Lane {
 public:
  Lane(MessageBoard& board, const MpiGroup& group, int tag, ScratchPool& pool)
      : board_(board), group_(&group), tag_(tag), pool_(pool) {}
  ~Lane();
  Lane(const Lane&) = delete;
  Lane& operator=(const Lane&) = delete;

  const MpiGroup& group() const { return *group_; }
  int tag() const { return tag_; }
  void send(const void* data, std::size_t bytes, int member);
  void recv(void* data, std::size_t bytes, int member);
  /// True when all that was posted has ended, as far as the board has seen. Throws Error if a message failed or had
  /// another length than expected.
  bool test() const;
  /// For the board: one message ended.
  void ended(std::exception_ptr error);
  /// Scratch that lives as long as the lane.
  void* scratch(std::size_t bytes);

  /// `co_await lane.settled()` goes on when test() is true.
  auto settled() const {
    struct Settled {
      const Lane& lane;
      bool await_ready() { return lane.test(); }
      void await_suspend(std::coroutine_handle<>) {}
      void await_resume() {}
    };
    return Settled{*this};
  }

 private:
  MessageBoard& board_;
  const MpiGroup* group_;
  int tag_;
  int pending_ = 0;
  std::exception_ptr error_;
  ScratchPool& pool_;
  std::vector<ScratchPool::Buffer> scratch_;
};

/// All messages in flight, so that one call asks MPI about them all. A receive is given to MPI only when its message is
/// there and its length known: Open MPI writes all of a longer message than was asked for, past the end of the buffer,
/// before it says MPI_ERR_TRUNCATE.
class MessageBoard {
 public:
  explicit MessageBoard(MPI_Comm comm) : comm_(comm) {}
  MessageBoard(const MessageBoard&) = delete;
  MessageBoard& operator=(const MessageBoard&) = delete;

  void send(Lane& lane, const void* data, std::size_t bytes, int member);
  void recv(Lane& lane, void* data, std::size_t bytes, int member);
  /// Tells lanes of messages that ended; true if any did.
  bool poll();
  /// Forgets the lane's messages; false if some are still on their way, so that their memory must live on.
  bool cancel(const Lane& lane);

 private:
  struct Posted {
    Lane* lane = nullptr;
    int member = 0;
    int bytes = -1;  ///< of a receive
  };
  struct Awaited {
    Lane* lane = nullptr;
    int member = 0;
    void* data = nullptr;
    int bytes = 0;
  };
  /// Taken out of MPI's queue: nobody else can receive it.
  struct Arrived {
    MPI_Message message = MPI_MESSAGE_NULL;
    int world_rank = 0;
    int tag = 0;
    int bytes = 0;
  };
  static int source_of(const Awaited& awaited) {
    return awaited.lane->group().members[static_cast<std::size_t>(awaited.member)];
  }
  bool take_arrived();
  void receive(const Awaited& awaited, Arrived& arrived);
  std::exception_ptr judge(const Posted& posted, MPI_Status& status, int code) const;
  void forget(std::size_t index);

  MPI_Comm comm_;
  std::deque<Awaited> awaited_;  ///< in the order of the calls, as MPI keeps messages of one source and tag in order
  std::deque<Arrived> arrived_;  ///< for receives that were not called for yet
  std::vector<MPI_Request> requests_;
  std::vector<Posted> posted_;
  std::vector<int> ended_;
  std::vector<MPI_Status> statuses_;
};

}  // namespace weft
