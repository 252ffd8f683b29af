#include "parallel/comm/mpi_flow.hpp"

#include <algorithm>
#include <functional>
#include <limits>

#include "core/base/clock.hpp"
#include "core/base/error.hpp"
#include "parallel/comm/mpi_check.hpp"

namespace weft {
namespace {

int length_of(std::size_t bytes) {
  WEFT_CHECK(bytes <= static_cast<std::size_t>(std::numeric_limits<int>::max()), "a message of {} bytes", bytes);
  return static_cast<int>(bytes);
}

}  // namespace

void check_mpi(int code, const char* call) {
  if (code == MPI_SUCCESS) return;
  char text[MPI_MAX_ERROR_STRING] = "";
  int length = 0;
  MPI_Error_string(code, text, &length);
  fail("{}: {}", call, text);
}

void Lane::send(const void* data, std::size_t bytes, int member) {
  board_.send(*this, data, bytes, member);
  ++pending_;
}

void Lane::recv(void* data, std::size_t bytes, int member) {
  board_.recv(*this, data, bytes, member);
  ++pending_;
}

bool Lane::test() const {
  if (error_) std::rethrow_exception(error_);
  return pending_ == 0;
}

void Lane::ended(std::exception_ptr error) {
  --pending_;
  if (error && !error_) error_ = std::move(error);
}

void* Lane::scratch(std::size_t bytes) {
  scratch_.push_back(pool_.take(bytes));
  return scratch_.back().first.get();
}

Lane::~Lane() {
  for (auto& buffer : scratch_) pool_.give(std::move(buffer));
}

void MessageBoard::send(Lane& lane, const void* data, std::size_t bytes, int member) {
  MPI_Request request = MPI_REQUEST_NULL;
  const int world_rank = lane.group().members[static_cast<std::size_t>(member)];
  check_mpi(MPI_Isend(data, length_of(bytes), MPI_BYTE, world_rank, lane.tag(), comm_, &request), "MPI_Isend");
  requests_.push_back(request);
  posted_.push_back({&lane, member, -1});
}

void MessageBoard::recv(Lane& lane, void* data, std::size_t bytes, int member) {
  const Awaited awaited{&lane, member, data, length_of(bytes)};
  const auto early = std::find_if(arrived_.begin(), arrived_.end(), [&](const Arrived& arrived) {
    return arrived.world_rank == source_of(awaited) && arrived.tag == lane.tag();
  });
  if (early == arrived_.end()) {
    awaited_.push_back(awaited);
    return;
  }
  receive(awaited, *early);
  arrived_.erase(early);
}

void MessageBoard::receive(const Awaited& awaited, Arrived& arrived) {
  MPI_Request request = MPI_REQUEST_NULL;
  if (arrived.bytes > awaited.bytes) {
    awaited.lane->ended(std::make_exception_ptr(Error(fmt::format("rank {} sent {} bytes where {} were expected",
                                                                  arrived.world_rank, arrived.bytes, awaited.bytes))));
    return;
  }
  check_mpi(MPI_Imrecv(awaited.data, awaited.bytes, MPI_BYTE, &arrived.message, &request), "MPI_Imrecv");
  requests_.push_back(request);
  posted_.push_back({awaited.lane, awaited.member, awaited.bytes});
}

bool MessageBoard::take_arrived() {
  bool moved = false;
  while (!awaited_.empty()) {
    Arrived arrived;
    MPI_Status status;
    int found = 0;
    check_mpi(MPI_Improbe(MPI_ANY_SOURCE, MPI_ANY_TAG, comm_, &found, &arrived.message, &status), "MPI_Improbe");
    if (!found) break;
    arrived.world_rank = status.MPI_SOURCE;
    arrived.tag = status.MPI_TAG;
    check_mpi(MPI_Get_count(&status, MPI_BYTE, &arrived.bytes), "MPI_Get_count");
    const auto wanted = std::find_if(awaited_.begin(), awaited_.end(), [&](const Awaited& awaited) {
      return arrived.world_rank == source_of(awaited) && arrived.tag == awaited.lane->tag();
    });
    if (wanted == awaited_.end()) {
      arrived_.push_back(arrived);
      continue;
    }
    receive(*wanted, arrived);
    awaited_.erase(wanted);
    moved = true;
  }
  return moved;
}

bool MessageBoard::poll() {
  const bool arrived = take_arrived();
  if (requests_.empty()) return arrived;
  ended_.resize(requests_.size());
  statuses_.resize(requests_.size());
  int count = 0, code = MPI_SUCCESS;
  // A call that finds nothing makes progress, and the next one sees what that brought.
  for (int attempt = 0; attempt < 2 && count == 0; ++attempt) {
    code = MPI_Testsome(static_cast<int>(requests_.size()), requests_.data(), &count, ended_.data(), statuses_.data());
    if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) check_mpi(code, "MPI_Testsome");
  }
  for (int i = 0; i < count; ++i) {
    const Posted& posted = posted_[static_cast<std::size_t>(ended_[static_cast<std::size_t>(i)])];
    posted.lane->ended(judge(posted, statuses_[static_cast<std::size_t>(i)], code));
  }
  std::sort(ended_.begin(), ended_.begin() + count, std::greater<>());
  for (int i = 0; i < count; ++i) forget(static_cast<std::size_t>(ended_[static_cast<std::size_t>(i)]));
  return arrived || count > 0;
}

std::exception_ptr MessageBoard::judge(const Posted& posted, MPI_Status& status, int code) const {
  const int world_rank = posted.lane->group().members[static_cast<std::size_t>(posted.member)];
  try {
    if (code == MPI_ERR_IN_STATUS) check_mpi(status.MPI_ERROR, "a message");
    if (posted.bytes < 0) return nullptr;
    int arrived = 0;
    check_mpi(MPI_Get_count(&status, MPI_BYTE, &arrived), "MPI_Get_count");
    if (arrived != posted.bytes)
      fail("rank {} sent {} bytes where {} were expected", world_rank, arrived, posted.bytes);
  } catch (...) {
    return std::current_exception();
  }
  return nullptr;
}

void MessageBoard::forget(std::size_t index) {
  requests_[index] = requests_.back();
  posted_[index] = posted_.back();
  requests_.pop_back();
  posted_.pop_back();
}

bool MessageBoard::cancel(const Lane& lane) {
  bool clean = true;
  std::erase_if(awaited_, [&](const Awaited& awaited) { return awaited.lane == &lane; });
  for (std::size_t i = requests_.size(); i-- > 0;) {
    if (posted_[i].lane != &lane) continue;
    if (posted_[i].bytes >= 0) MPI_Cancel(&requests_[i]);
    constexpr double patience_seconds = 0.02;
    int over = 0;
    for (const double begun = seconds_now(); !over && seconds_now() - begun < patience_seconds;)
      if (MPI_Test(&requests_[i], &over, MPI_STATUS_IGNORE) != MPI_SUCCESS) over = 1;
    clean = clean && over;
    forget(i);
  }
  return clean;
}

ScratchPool::Buffer ScratchPool::take(std::size_t bytes) {
  auto best = free_.end();
  for (auto buffer = free_.begin(); buffer != free_.end(); ++buffer)
    if (buffer->second >= bytes && (best == free_.end() || buffer->second < best->second)) best = buffer;
  if (best != free_.end()) {
    Buffer found = std::move(*best);
    free_.erase(best);
    return found;
  }
  return {std::make_unique_for_overwrite<std::byte[]>(bytes), bytes};
}

}  // namespace weft
