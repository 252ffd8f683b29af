#include "launcher/device_world.hpp"

#include <algorithm>
#include <map>

#include "core/base/log.hpp"
#include "launcher/processes.hpp"
#include "parallel/comm/linked_transport.hpp"
#include "parallel/comm/staged_transport.hpp"
#include "parallel/comm/text_exchange.hpp"

namespace weft {
namespace {

constexpr char separator = '\n';

/// Opens the device's links; an empty text if there are any.
std::string missing_links(Device& device) {
  try {
    device.links();
    return {};
  } catch (const Error& error) {
    std::string text = error.what();
    std::ranges::replace(text, separator, ' ');
    return text;
  }
}

std::vector<RankLinks> exchange_links(Communicator& world, Device& device) {
  const std::string own =
      fmt::format("{}{}{}{}{}", host_name(), separator, device.facts().pci, separator, missing_links(device));
  std::vector<RankLinks> ranks;
  for (const std::string& text : all_gather_text(world, own)) {
    const auto first = text.find(separator), second = text.find(separator, first + 1);
    ranks.push_back({text.substr(0, first), text.substr(first + 1, second - first - 1), text.substr(second + 1)});
  }
  return ranks;
}

/// The same on all ranks.
bool take_links(Communicator& world, Device& device, GpuComm choice) {
  if (choice == GpuComm::mpi || world.size() == 1) return false;
  const std::string why_not = why_not_linked(exchange_links(world, device));
  if (why_not.empty()) return true;
  if (choice == GpuComm::nccl) fail_user("--gpu-comm: found nccl, but {}; auto or mpi would be right", why_not);
  if (world.rank() == 0)
    log_warning("GPUs exchange through host memory and MPI, which is slow: {} (--gpu-comm mpi would not ask)", why_not);
  return false;
}

}  // namespace

std::string why_not_linked(const std::vector<RankLinks>& ranks) {
  std::map<std::pair<std::string, std::string>, std::size_t> seen;
  for (std::size_t rank = 0; rank < ranks.size(); ++rank) {
    const auto& [host, pci, missing] = ranks[rank];
    if (!missing.empty()) return fmt::format("rank {} on {} has no links: {}", rank, host, missing);
    if (pci.empty()) continue;
    const auto [other, alone] = seen.try_emplace({host, pci}, rank);
    if (!alone)
      return fmt::format("ranks {} and {} share GPU {} of {}, and NCCL wants one for each", other->second, rank, pci,
                         host);
  }
  return {};
}

std::unique_ptr<Communicator> make_device_world(Communicator& world, Device& device, const RunOptions& options,
                                                LinkWatch::OnFailure on_failure) {
  if (device.exec().device().kind == DeviceKind::cpu) return nullptr;
  DeviceReach reach;
  reach.device = &device;
  if (take_links(world, device, options.gpu_comm)) {
    constexpr double never = 1e9;  // seconds
    const LinkOptions links{host_name(), options.timeout > 0 ? options.timeout : never};
    reach.extend =
        [=, watch = std::make_shared<LinkWatch>(device, std::move(on_failure))](std::unique_ptr<Transport> transport) {
          return make_linked_transport(std::move(transport), watch, links);
        };
  } else {
    reach.extend = [&device](std::unique_ptr<Transport> transport) {
      return make_staged_transport(std::move(transport), std::make_shared<DeviceStaging>(device));
    };
  }
  return world.split(0, world.rank(), "world", Priority::urgent, reach);
}

}  // namespace weft
