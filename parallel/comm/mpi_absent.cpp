// The runtime of a build without MPI: one rank, whose collectives are copies.
#include <unistd.h>

#include <array>

#include "parallel/comm/mpi_runtime.hpp"

namespace weft {

class MpiRuntime::Impl {};

std::string mpi_library() { return {}; }

MpiRuntime::MpiRuntime(int&, char**&, CommLog& log, MpiOptions) : world_(make_self_communicator(log, "world")) {
  std::array<char, 256> host{};
  const bool named = ::gethostname(host.data(), host.size() - 1) == 0;
  places_.push_back({named ? host.data() : "unknown", static_cast<std::int32_t>(::getpid())});
}

MpiRuntime::~MpiRuntime() = default;
bool MpiRuntime::all_alive(double) { return true; }
void MpiRuntime::abort_job(int) {}
void MpiRuntime::mark_failed() {}

}  // namespace weft
