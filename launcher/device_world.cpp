#include "launcher/device_world.hpp"

#include "parallel/comm/staged_transport.hpp"

namespace weft {

std::unique_ptr<Communicator> make_device_world(Communicator& world, Device& device) {
  if (device.exec().device().kind == DeviceKind::cpu) return nullptr;
  DeviceReach reach;
  reach.device = &device;
  reach.extend = [&device](std::unique_ptr<Transport> transport) {
    return make_staged_transport(std::move(transport), std::make_shared<DeviceStaging>(device));
  };
  return world.split(0, world.rank(), "world", Priority::urgent, reach);
}

}  // namespace weft
