// What every backend must pass: a case against its oracle and that oracle's finite differences.
#pragma once
#include "tests/unit/op_cases/run.hpp"

namespace weft::test {

/// A backend in host memory, given its kernels.
class HostMachine final : public Machine {
 public:
  HostMachine(const KernelTable& kernels, std::unique_ptr<BackendState> state, int threads);
  ExecContext& exec() override { return *exec_; }
  void to_device(void* device, const void* host, std::size_t bytes) override;
  void to_host(void* host, const void* device, std::size_t bytes) override;

 private:
  std::unique_ptr<Allocator> memory_;
  std::unique_ptr<ExecContext> exec_;
};

/// What a run of a case left: values, and the bytes of all of them.
struct Results {
  Values outputs, gradients;
  std::vector<std::vector<char>> bytes;
};

Results execute(Machine& machine, const OpCase& op, DType activation);

/// Fails the calling test where outputs or gradients are not the oracle's within the case's tolerance.
void expect_right(const OpCase& op, DType activation, const Results& found);

/// The name of a parametrised test: letters, digits and underlines alone.
std::string test_name(std::string text);

}  // namespace weft::test
