#include "tests/gpu/device_under_test.hpp"

#include "launcher/devices.hpp"

namespace weft::test {
namespace {

std::unique_ptr<Device> open(DeviceChoice choice) {
  RunOptions options;
  options.device = choice;
  return open_device(options, rank_environment(), cpu::best_isa());
}

}  // namespace

std::unique_ptr<Device> open_gpu() { return open(DeviceChoice::cuda); }
std::unique_ptr<Device> open_host() { return open(DeviceChoice::cpu); }

void DeviceMachine::to_device(void* device, const void* host, std::size_t bytes) {
  const Shape shape{static_cast<std::int64_t>(bytes)};
  exec().kernels().transfer.upload(exec(), View(host, shape, DType::u8),
                                   MutView(device, shape, DType::u8, exec().device()));
}

void DeviceMachine::to_host(void* host, const void* device, std::size_t bytes) {
  const Shape shape{static_cast<std::int64_t>(bytes)};
  exec().kernels().transfer.download(exec(), View(device, shape, DType::u8, exec().device()),
                                     MutView(host, shape, DType::u8));
}

}  // namespace weft::test
