#include "parallel/comm/mpi_flow.hpp"

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
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Isend(data, length_of(bytes), MPI_BYTE, group_->members[static_cast<std::size_t>(member)], tag_, comm_,
                      &request),
            "MPI_Isend");
  requests_.push_back(request);
  expected_.push_back({-1, member});
}

void Lane::recv(void* data, std::size_t bytes, int member) {
  MPI_Request request = MPI_REQUEST_NULL;
  check_mpi(MPI_Irecv(data, length_of(bytes), MPI_BYTE, group_->members[static_cast<std::size_t>(member)], tag_, comm_,
                      &request),
            "MPI_Irecv");
  requests_.push_back(request);
  expected_.push_back({length_of(bytes), member});
}

bool Lane::test() {
  if (requests_.empty()) return true;
  int all = 0;
  statuses_.resize(requests_.size());
  const int code = MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &all, statuses_.data());
  if (code != MPI_SUCCESS && code != MPI_ERR_IN_STATUS) check_mpi(code, "MPI_Testall");
  if (code == MPI_SUCCESS && !all) return false;
  for (std::size_t i = 0; i < expected_.size(); ++i) {
    const auto& [bytes, member] = expected_[i];
    const int world_rank = group_->members[static_cast<std::size_t>(member)];
    if (code == MPI_ERR_IN_STATUS && statuses_[i].MPI_ERROR != MPI_SUCCESS && statuses_[i].MPI_ERROR != MPI_ERR_PENDING) {
      int kind = MPI_SUCCESS;
      MPI_Error_class(statuses_[i].MPI_ERROR, &kind);
      if (kind == MPI_ERR_TRUNCATE) fail("rank {} sent more than the {} bytes expected of it", world_rank, bytes);
      check_mpi(statuses_[i].MPI_ERROR, "a message");
    }
    if (bytes < 0 || !all) continue;
    int arrived = 0;
    check_mpi(MPI_Get_count(&statuses_[i], MPI_BYTE, &arrived), "MPI_Get_count");
    if (arrived != bytes) fail("rank {} sent {} bytes where {} were expected", world_rank, arrived, bytes);
  }
  if (!all) return false;
  requests_.clear();
  expected_.clear();
  return true;
}

bool Lane::cancel() {
  for (std::size_t i = 0; i < requests_.size(); ++i)
    if (requests_[i] != MPI_REQUEST_NULL && expected_[i].bytes >= 0) MPI_Cancel(&requests_[i]);
  constexpr double patience_seconds = 0.05;
  for (const double begun = seconds_now(); seconds_now() - begun < patience_seconds;) {
    int all = 0;
    // An error belongs to a request that has ended by it.
    const int code = MPI_Testall(static_cast<int>(requests_.size()), requests_.data(), &all, MPI_STATUSES_IGNORE);
    if (code == MPI_SUCCESS && all) return true;
  }
  return false;
}

void* Lane::scratch(std::size_t bytes) {
  scratch_.push_back(pool_.take(bytes));
  return scratch_.back().first.get();
}

Lane::~Lane() {
  for (auto& buffer : scratch_) pool_.give(std::move(buffer));
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
