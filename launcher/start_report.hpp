// Which ranks keep a job from coming up, as far as the processes of this host show it: MPI itself names nobody.
#pragma once
#include <sys/types.h>

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "launcher/environment.hpp"

namespace weft {

/// A thread of this name exists while its rank waits for the others.
inline constexpr std::string_view start_thread_name = "weft-start";

/// A rank of this host.
struct StartingRank {
  int rank = 0;
  pid_t pid = 0;
  char state = 0;      ///< as state_of()
  bool waits = false;  ///< for the others, in the start of MPI

  bool ready() const { return waits && state != 'T' && state != 't' && state != 'D' && state != 'Z'; }
};

/// The ranks of this host that belong to the job of this one, by rank; under any starter, as /proc shows them.
std::vector<StartingRank> starting_ranks(const RankEnvironment& self);

/// Who of `ranks` is not ready and why; where all are, that the cause is elsewhere. `ranks` as starting_ranks() gives them.
std::string start_report(const RankEnvironment& self, std::string_view host, std::span<const StartingRank> ranks);

/// Whether this rank is the one of its host to say so: its first that is ready, and where all are only if it is one of the
/// job's first two.
bool speaks_for_host(const RankEnvironment& self, std::span<const StartingRank> ranks);

}  // namespace weft
