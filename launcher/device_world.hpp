// The ranks as a group whose collectives reach the memory that they compute in.
#pragma once
#include <memory>
#include <string>
#include <vector>

#include "core/kernels/device.hpp"
#include "launcher/options.hpp"
#include "parallel/comm/communicator.hpp"
#include "parallel/comm/link_watch.hpp"

namespace weft {

/// What decides whether a rank's device can exchange memory with the others by links of its own.
struct RankLinks {
  std::string host;
  std::string pci;      ///< empty: unknown
  std::string missing;  ///< why it has none; empty: it has
};

/// Why these ranks cannot use links, in a line for people; empty if they can.
std::string why_not_linked(const std::vector<RankLinks>& ranks);

/// Collective over `world`: a group of the same ranks that also reaches memory of `device`, which outlives it. Null where
/// `world` does already: on the CPU. `on_failure`: see LinkWatch. Throws UserError when --gpu-comm nccl cannot be had.
std::unique_ptr<Communicator> make_device_world(Communicator& world, Device& device, const RunOptions& options,
                                                LinkWatch::OnFailure on_failure);

}  // namespace weft
