// Device memory over the device's own links (NCCL), host memory over another transport.
#pragma once
#include <memory>
#include <string>

#include "parallel/comm/link_watch.hpp"
#include "parallel/comm/transport.hpp"

namespace weft {

struct LinkOptions {
  std::string host;     ///< this rank's, for messages
  double timeout = 60;  ///< seconds that a new group waits for its members
};

/// Serves host memory as `inner` does, and the memory of the watch's device by its links, in one queue for all groups of the
/// same ranks and priority.
/// A collective starts when the computing queue has run what it was given so far, and waiting for it makes that queue
/// wait, not the host: collectives can be part of a recorded step. Lone sends and receives are started together, when one of
/// them is waited for or another operation of the group starts; those between two ranks are in one order on both, tags or
/// not.
std::unique_ptr<Transport> make_linked_transport(std::unique_ptr<Transport> inner, std::shared_ptr<LinkWatch> watch,
                                                 LinkOptions options);

}  // namespace weft
