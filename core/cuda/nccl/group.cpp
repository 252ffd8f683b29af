#include "core/cuda/nccl/group.hpp"

#include <chrono>
#include <condition_variable>
#include <cstring>
#include <exception>
#include <thread>

#include "core/base/error.hpp"

namespace weft::cuda {
namespace {

static_assert(sizeof(LinkId) == sizeof(NcclId));

NcclType type_of(DType dtype) {
  switch (dtype) {
    case DType::f32: return NcclType::f32;
    case DType::f64: return NcclType::f64;
    case DType::i32: return NcclType::i32;
    case DType::i64: return NcclType::i64;
    case DType::u8: return NcclType::u8;
    default: fail("NCCL does not reduce {} as Weft does", name_of(dtype));
  }
}

NcclReduce reduce_of(ReduceOp op) {
  switch (op) {
    case ReduceOp::sum: return NcclReduce::sum;
    case ReduceOp::max: return NcclReduce::max;
    case ReduceOp::min: return NcclReduce::min;
  }
  fail("no such reduction");
}

std::size_t count_of(const View& view) { return static_cast<std::size_t>(view.numel()); }

NcclStream stream_of(const ExecContext& queue) { return queue.stream.handle; }

/// What the joining thread leaves behind; it may outlast whoever waits for it.
struct Joining {
  std::mutex mutex;
  std::condition_variable ended;
  bool done = false, abandoned = false;
  NcclComm comm = nullptr;
  std::string error;
};

std::shared_ptr<Joining> start_joining(std::shared_ptr<const Nccl> api, const NcclId& id, int rank, int size,
                                       const std::function<void()>& enter_thread) {
  auto joining = std::make_shared<Joining>();
  std::thread([=, api = std::move(api)] {
    NcclComm comm = nullptr;
    std::string error;
    try {
      if (enter_thread) enter_thread();
      NcclConfig config;
      api->check(api->init(&comm, size, id, rank, &config), "ncclCommInitRankConfig", comm);
    } catch (const std::exception& caught) {
      error = caught.what();
    }
    const std::lock_guard lock(joining->mutex);
    if (comm && (joining->abandoned || !error.empty())) api->give_up(std::exchange(comm, nullptr));
    joining->comm = comm;
    joining->error = std::move(error);
    joining->done = true;
    joining->ended.notify_all();
  }).detach();
  return joining;
}

}  // namespace

NcclGroup::NcclGroup(std::shared_ptr<const Nccl> api, const LinkId& id, LinkPlace place, double timeout,
                     const std::function<void()>& enter_thread)
    : api_(std::move(api)), place_(std::move(place)) {
  NcclId bytes{};
  std::memcpy(bytes.bytes, id.data(), sizeof bytes.bytes);
  const auto joining = start_joining(api_, bytes, place_.rank, place_.size, enter_thread);
  std::unique_lock lock(joining->mutex);
  if (!joining->ended.wait_for(lock, std::chrono::duration<double>(timeout), [&] { return joining->done; })) {
    joining->abandoned = true;
    fail_group(fmt::format("ncclCommInitRankConfig: the other ranks did not come within {:g} s", timeout));
  }
  if (!joining->error.empty()) fail_group(joining->error);
  comm_ = joining->comm;
}

NcclGroup::~NcclGroup() {
  if (!comm_) return;
  // The end in order waits for the other members, who go on where this one has failed.
  if (std::uncaught_exceptions() == 0 && api_->finalize(comm_) == NcclStatus::success)
    api_->destroy(comm_);
  else
    api_->give_up(comm_);
}

void NcclGroup::fail_group(const std::string& reason) {
  if (NcclComm comm = std::exchange(comm_, nullptr)) api_->give_up(comm);
  fail("rank {} of {} in group {} on host {}: {}", place_.rank, place_.size, place_.group, place_.host, reason);
}

template <class Call>
void NcclGroup::run(const char* name, Call call) {
  const std::lock_guard lock(mutex_);
  WEFT_CHECK(comm_, "group {} has failed before", place_.group);
  try {
    api_->check(call(), name, comm_);
  } catch (const Error& error) {
    fail_group(error.what());
  }
}

template <class Calls>
void NcclGroup::run_grouped(const char* name, Calls calls) {
  run(name, [&] {
    api_->check(api_->group_start(), "ncclGroupStart");
    try {
      calls();
    } catch (...) {
      api_->group_end();
      throw;
    }
    return api_->group_end();
  });
}

void NcclGroup::poll() {
  // A call under way finds an error by itself.
  const std::unique_lock lock(mutex_, std::try_to_lock);
  if (!lock) return;
  WEFT_CHECK(comm_, "group {} has failed before", place_.group);
  NcclStatus status = NcclStatus::success;
  const NcclStatus asked = api_->async_error(comm_, &status);
  try {
    api_->check(asked == NcclStatus::success ? status : asked, "a collective", comm_);
  } catch (const Error& error) {
    fail_group(error.what());
  }
}

void NcclGroup::all_reduce(ExecContext& queue, MutView x, ReduceOp op) {
  const NcclType type = type_of(x.dtype);
  run("ncclAllReduce",
      [&] { return api_->all_reduce(x.data, x.data, count_of(x), type, reduce_of(op), comm_, stream_of(queue)); });
}

void NcclGroup::all_gather(ExecContext& queue, View input, MutView output) {
  run("ncclAllGather",
      [&] { return api_->all_gather(input.data, output.data, input.bytes(), NcclType::u8, comm_, stream_of(queue)); });
}

void NcclGroup::reduce_scatter(ExecContext& queue, View input, MutView output, ReduceOp op) {
  const NcclType type = type_of(input.dtype);
  run("ncclReduceScatter", [&] {
    return api_->reduce_scatter(input.data, output.data, count_of(output), type, reduce_of(op), comm_,
                                stream_of(queue));
  });
}

void NcclGroup::broadcast(ExecContext& queue, MutView x, int root) {
  run("ncclBroadcast",
      [&] { return api_->broadcast(x.data, x.data, x.bytes(), NcclType::u8, root, comm_, stream_of(queue)); });
}

void NcclGroup::all_to_all(ExecContext& queue, View input, MutView output) {
  const std::size_t part = input.bytes() / static_cast<std::size_t>(place_.size);
  const NcclStream stream = stream_of(queue);
  run_grouped("all_to_all", [&] {
    for (int peer = 0; peer < place_.size; ++peer) {
      const std::size_t at = static_cast<std::size_t>(peer) * part;
      api_->check(api_->send(static_cast<const char*>(input.data) + at, part, NcclType::u8, peer, comm_, stream),
                  "ncclSend", comm_);
      api_->check(api_->recv(static_cast<char*>(output.data) + at, part, NcclType::u8, peer, comm_, stream), "ncclRecv",
                  comm_);
    }
  });
}

void NcclGroup::exchange(ExecContext& queue, std::span<const LinkMessage> messages) {
  const NcclStream stream = stream_of(queue);
  run_grouped("exchange", [&] {
    for (const auto& [peer, sent, received] : messages) {
      if (sent) api_->check(api_->send(sent.data, sent.bytes(), NcclType::u8, peer, comm_, stream), "ncclSend", comm_);
      if (received)
        api_->check(api_->recv(received.data, received.bytes(), NcclType::u8, peer, comm_, stream), "ncclRecv", comm_);
    }
  });
}

LinkId NcclLinks::make_id() {
  NcclId bytes{};
  api_->check(api_->make_id(&bytes), "ncclGetUniqueId");
  LinkId id{};
  std::memcpy(id.data(), bytes.bytes, sizeof bytes.bytes);
  return id;
}

}  // namespace weft::cuda
