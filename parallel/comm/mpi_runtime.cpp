#include "parallel/comm/mpi_runtime.hpp"

#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>
#include <optional>

#include "core/base/log.hpp"
#include "parallel/comm/mpi_check.hpp"
#include "parallel/comm/mpi_transport.hpp"

namespace weft {
namespace {

std::string host_name() {
  std::array<char, 256> name{};
  if (::gethostname(name.data(), name.size() - 1) != 0) return "unknown";
  return name.data();
}

/// Collective over `comm`, before the communication thread exists.
std::vector<RankPlace> gather_places(MPI_Comm comm, int size) {
  struct Entry {
    std::array<char, 256> host;
    std::int32_t pid;
  };
  Entry own{};
  const std::string host = host_name();
  std::memcpy(own.host.data(), host.data(), host.size());
  own.pid = static_cast<std::int32_t>(::getpid());
  std::vector<Entry> entries(static_cast<std::size_t>(size));
  check_mpi(MPI_Allgather(&own, sizeof own, MPI_BYTE, entries.data(), sizeof own, MPI_BYTE, comm), "MPI_Allgather");
  std::vector<RankPlace> places;
  for (const auto& entry : entries) places.push_back({entry.host.data(), entry.pid});
  return places;
}

MPI_Comm duplicate(MPI_Comm comm) {
  MPI_Comm copy = MPI_COMM_NULL;
  check_mpi(MPI_Comm_dup(comm, &copy), "MPI_Comm_dup");
  check_mpi(MPI_Comm_set_errhandler(copy, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  return copy;
}

constexpr int alive_context = 0;

}  // namespace

class MpiRuntime::Impl {
 public:
  Impl(CommLog& log, const MpiOptions& options, const std::vector<RankPlace>& places)
      : data(duplicate(MPI_COMM_WORLD)), heart_comm(duplicate(MPI_COMM_WORLD)) {
    std::unique_ptr<MpiHeart> heart;
    if (places.size() > 1)
      heart = std::make_unique<MpiHeart>(heart_comm, log, places, options.timeout_seconds, options.heartbeat_seconds);
    MpiEngine::Options engine_options;
    engine_options.tuning = options.tuning;
    engine_options.compares = options.compare == CompareCollectives::yes;
    engine_options.on_failure = options.on_failure;
    engine.emplace(data, log, std::move(heart), std::move(engine_options));
  }

  MPI_Comm data;
  MPI_Comm heart_comm;
  std::optional<MpiEngine> engine;
  std::shared_ptr<MpiGroup> all;  ///< of all_alive(); null for one rank
  double finalize_seconds = 0;
  bool someone_lost = false;
  std::uint64_t agreements = 0;
};

std::string mpi_library() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING] = {};
  int length = 0;
  MPI_Get_library_version(text, &length);
  const std::string all(text, static_cast<std::size_t>(std::max(0, length)));
  return all.substr(0, all.find_first_of(",\n"));
}

MpiRuntime::MpiRuntime(int& argc, char**& argv, CommLog& log, MpiOptions options) {
  int level = 0;
  check_mpi(MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &level), "MPI_Init_thread");
  if (level < MPI_THREAD_SERIALIZED)
    fail("this MPI library gives thread level {}, and MPI_THREAD_SERIALIZED is needed", level);
  check_mpi(MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN), "MPI_Comm_set_errhandler");
  int rank = 0, size = 1;
  check_mpi(MPI_Comm_rank(MPI_COMM_WORLD, &rank), "MPI_Comm_rank");
  check_mpi(MPI_Comm_size(MPI_COMM_WORLD, &size), "MPI_Comm_size");
  places_ = gather_places(MPI_COMM_WORLD, size);
  for (int other = 0; other < size; ++other) {
    if (places_[static_cast<std::size_t>(other)].host != places_[static_cast<std::size_t>(rank)].host) continue;
    if (other < rank) ++local_rank_;
    if (other != rank) ++local_size_;
  }
  impl_ = std::make_unique<Impl>(log, options, places_);
  impl_->finalize_seconds = options.finalize_seconds;
  if (size == 1) {
    world_ = make_self_communicator(log, "world");
  } else {
    std::vector<int> members(static_cast<std::size_t>(size));
    std::iota(members.begin(), members.end(), 0);
    const auto group = [&](int context) {
      auto made = std::make_shared<MpiGroup>();
      made->name = "world";
      made->members = members;
      made->rank = rank;
      made->context = context;
      return made;
    };
    impl_->all = group(alive_context);
    impl_->engine->reserve_context(alive_context);
    std::unique_ptr<Transport> transport =
        std::make_unique<MpiTransport>(*impl_->engine, places_, group(impl_->engine->free_context()));
    if (!options.test_plan.empty()) transport = make_test_transport(std::move(transport), options.test_plan, "world");
    world_ = std::make_unique<Communicator>(std::move(transport), log, "world", Priority::urgent);
  }
}

MpiRuntime::~MpiRuntime() {
  const bool together = all_alive(impl_->finalize_seconds);
  world_.reset();
  const bool clean = impl_->engine->stop();
  if (together && clean) {
    impl_->engine.reset();
    MPI_Comm_free(&impl_->heart_comm);
    MPI_Comm_free(&impl_->data);
    MPI_Finalize();
    return;
  }
  // Other ranks may be gone or elsewhere: MPI_Finalize would wait for them for ever. What messages may still touch
  // stays.
  log_warning("leaving without MPI_Finalize: {}",
              together ? "a collective was still in flight" : "not all ranks arrived at the end");
  impl_.release();
}

bool MpiRuntime::all_alive(double seconds) {
  if (!impl_->all) return true;
  if (impl_->someone_lost || impl_->engine->failed()) return false;
  auto operation = std::make_shared<Operation>(Collective{.sequence = impl_->agreements++}, nullptr);
  impl_->engine->submit(operation, impl_->all);
  try {
    impl_->someone_lost = !operation->wait_for(seconds);
  } catch (const Error&) {
    impl_->someone_lost = true;
  }
  return !impl_->someone_lost;
}

void MpiRuntime::abort_job(int status) { impl_->engine->abort_job(status); }

void MpiRuntime::mark_failed() { impl_->engine->mark_failed(); }

}  // namespace weft
