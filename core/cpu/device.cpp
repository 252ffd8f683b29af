#include "core/cpu/device.hpp"

#include <fstream>

#include "core/tensor/caching_allocator.hpp"

namespace weft::cpu {
namespace {

std::string processor_name() {
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);)
    if (line.starts_with("model name")) return line.substr(line.find(':') + 2);
  return "CPU";
}

/// A queue that runs everything at once is always at its end.
class PassedEvent final : public Event {
 public:
  void record(ExecContext&) override {}
  void hold(ExecContext&) override {}
  bool passed() override { return true; }
  void wait() override {}
};

class CpuDevice final : public Device {
 public:
  explicit CpuDevice(const CpuDeviceOptions& options)
      : options_(options), memory_(make_caching_allocator(make_host_memory(), {options.memory_limit})) {
    bind(kernels_, kernel_abi_hash(), options.isa);
    exec_ = make_queue();
    facts_.name = fmt::format("{}, {}", processor_name(), name_of(options.isa));
    facts_.fast_bf16 = has_bf16();
  }

  const DeviceFacts& facts() const override { return facts_; }
  void enter_thread() override {}
  ExecContext& exec() override { return *exec_; }
  Allocator& host_memory() override { return *memory_; }
  std::unique_ptr<ExecContext> make_queue() override {
    auto queue = std::make_unique<ExecContext>(kernels_, *memory_, options_.threads);
    queue->backend = make_state();
    return queue;
  }
  std::unique_ptr<Event> make_event() override { return std::make_unique<PassedEvent>(); }
  bool asynchronous() const override { return false; }
  std::unique_ptr<WorkGraph> capture(const std::function<void()>&) override { return nullptr; }

 private:
  CpuDeviceOptions options_;
  std::unique_ptr<Allocator> memory_;
  KernelTable kernels_;
  std::unique_ptr<ExecContext> exec_;
  DeviceFacts facts_;
};

}  // namespace

std::unique_ptr<Device> make_device(const CpuDeviceOptions& options) { return std::make_unique<CpuDevice>(options); }

}  // namespace weft::cpu
