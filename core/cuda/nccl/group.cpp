#include "core/cuda/nccl/group.hpp"

#include <chrono>
#include <thread>

#include "core/base/clock.hpp"
#include "core/base/error.hpp"

namespace weft::cuda {
namespace {

constexpr auto poll_interval = std::chrono::microseconds(200);
constexpr double patience_at_end_seconds = 10;

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

std::size_t count_of(const View& view) { return static_cast<std::size_t>(view.numel()); }

}  // namespace

NcclGroup::NcclGroup(std::shared_ptr<const Nccl> api, const NcclId& id, NcclPlace place, double timeout)
    : api_(std::move(api)), place_(std::move(place)), timeout_(timeout) {
  NcclConfig config;
  run("ncclCommInitRankConfig", [&] { return api_->init(&comm_, place_.size, id, place_.rank, &config); });
}

NcclGroup::~NcclGroup() {
  if (!comm_) return;
  NcclStatus status = api_->finalize(comm_);
  for (const double begun = seconds_now(); status == NcclStatus::in_progress;) {
    if (seconds_now() - begun > patience_at_end_seconds) break;
    std::this_thread::sleep_for(poll_interval);
    if (api_->async_error(comm_, &status) != NcclStatus::success) break;
  }
  if (status == NcclStatus::success)
    api_->destroy(comm_);
  else
    api_->give_up(comm_);
}

void NcclGroup::give_up() {
  failed_ = true;
  if (NcclComm comm = std::exchange(comm_, nullptr)) api_->give_up(comm);
}

void NcclGroup::fail_group(const char* name, const std::string& reason) {
  give_up();
  fail("rank {} of {} in group {} on host {}: {}: {}", place_.rank, place_.size, place_.group, place_.host, name,
       reason);
}

void NcclGroup::settle(const char* name) {
  for (const double begun = seconds_now();;) {
    NcclStatus status = NcclStatus::success;
    const NcclStatus asked = api_->async_error(comm_, &status);
    if (asked != NcclStatus::success) status = asked;
    if (status == NcclStatus::success) return;
    if (status != NcclStatus::in_progress) {
      const char* details = api_->last_error(comm_);
      fail_group(name, fmt::format("{} ({})", api_->status_text(status), details ? details : ""));
    }
    if (seconds_now() - begun > timeout_)
      fail_group(name, fmt::format("the other ranks did not come within {:g} s", timeout_));
    std::this_thread::sleep_for(poll_interval);
  }
}

template <class Call>
void NcclGroup::run(const char* name, Call call) {
  WEFT_CHECK(!failed_, "group {} has failed before", place_.group);
  try {
    const NcclStatus status = call();
    api_->check(status, name, comm_);
    if (status == NcclStatus::success) return;
  } catch (const Error& error) {
    fail_group(name, error.what());
  }
  settle(name);
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
  WEFT_CHECK(!failed_, "group {} has failed before", place_.group);
  NcclStatus status = NcclStatus::success;
  const NcclStatus asked = api_->async_error(comm_, &status);
  if (asked != NcclStatus::success) status = asked;
  if (status != NcclStatus::success && status != NcclStatus::in_progress) settle("a collective");
}

void NcclGroup::all_reduce(MutView x, NcclReduce op, NcclStream stream) {
  const NcclType type = type_of(x.dtype);
  run("ncclAllReduce", [&] { return api_->all_reduce(x.data, x.data, count_of(x), type, op, comm_, stream); });
}

void NcclGroup::all_gather(View input, MutView output, NcclStream stream) {
  run("ncclAllGather",
      [&] { return api_->all_gather(input.data, output.data, input.bytes(), NcclType::u8, comm_, stream); });
}

void NcclGroup::reduce_scatter(View input, MutView output, NcclReduce op, NcclStream stream) {
  const NcclType type = type_of(input.dtype);
  run("ncclReduceScatter",
      [&] { return api_->reduce_scatter(input.data, output.data, count_of(output), type, op, comm_, stream); });
}

void NcclGroup::broadcast(MutView x, int root, NcclStream stream) {
  run("ncclBroadcast", [&] { return api_->broadcast(x.data, x.data, x.bytes(), NcclType::u8, root, comm_, stream); });
}

void NcclGroup::all_to_all(View input, MutView output, NcclStream stream) {
  const std::size_t part = input.bytes() / static_cast<std::size_t>(place_.size);
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

void NcclGroup::send(View x, int destination, NcclStream stream) {
  run("ncclSend", [&] { return api_->send(x.data, x.bytes(), NcclType::u8, destination, comm_, stream); });
}

void NcclGroup::recv(MutView x, int source, NcclStream stream) {
  run("ncclRecv", [&] { return api_->recv(x.data, x.bytes(), NcclType::u8, source, comm_, stream); });
}

void NcclGroup::send_recv(View x, int destination, MutView y, int source, NcclStream stream) {
  run_grouped("send_recv", [&] {
    api_->check(api_->send(x.data, x.bytes(), NcclType::u8, destination, comm_, stream), "ncclSend", comm_);
    api_->check(api_->recv(y.data, y.bytes(), NcclType::u8, source, comm_, stream), "ncclRecv", comm_);
  });
}

}  // namespace weft::cuda
