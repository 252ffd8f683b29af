// The device that these tests run on: the one that `--device cuda` takes. WEFT_CUDA_MODULE may name another module.
#pragma once
#include <memory>

#include "core/kernels/device.hpp"
#include "tests/unit/op_cases/run.hpp"

namespace weft::test {

/// Throws UserError that says what is missing.
std::unique_ptr<Device> open_gpu();
/// The CPU backend, which computes what the GPU is held against.
std::unique_ptr<Device> open_host();

/// A device for the table of operation cases, which it reaches by its own copies alone.
class DeviceMachine final : public Machine {
 public:
  explicit DeviceMachine(Device& device) : device_(device) {}
  ExecContext& exec() override { return device_.exec(); }
  void to_device(void* device, const void* host, std::size_t bytes) override;
  void to_host(void* host, const void* device, std::size_t bytes) override;

 private:
  Device& device_;
};

}  // namespace weft::test
