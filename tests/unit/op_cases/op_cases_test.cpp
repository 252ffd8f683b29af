// Every case on every instruction set of this processor, in f32 and bf16.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>

#include "core/cpu/backend.hpp"
#include "core/tensor/caching_allocator.hpp"
#include "tests/unit/op_cases/reference.hpp"

namespace weft::test {
namespace {

class HostMachine final : public Machine {
 public:
  HostMachine(cpu::Isa isa, int threads) : memory_(make_caching_allocator(make_host_memory())) {
    cpu::bind(kernels_, kernel_abi_hash(), isa);
    exec_ = std::make_unique<ExecContext>(kernels_, *memory_, threads);
    exec_->backend = cpu::make_state();
  }
  ExecContext& exec() override { return *exec_; }
  void to_device(void* device, const void* host, std::size_t bytes) override { std::memcpy(device, host, bytes); }
  void to_host(void* host, const void* device, std::size_t bytes) override { std::memcpy(host, device, bytes); }

 private:
  KernelTable kernels_;
  std::unique_ptr<Allocator> memory_;
  std::unique_ptr<ExecContext> exec_;
};

std::vector<cpu::Isa> available() {
  std::vector<cpu::Isa> all;
  for (const cpu::Isa isa : {cpu::Isa::portable, cpu::Isa::v3, cpu::Isa::v4})
    if (isa <= cpu::best_isa()) all.push_back(isa);
  return all;
}

struct Point {
  OpCase op;
  DType activation;
  cpu::Isa isa;
};

void PrintTo(const Point& point, std::ostream* out) {
  *out << point.op.name << " " << name_of(point.activation) << " " << name_of(point.isa);
}

std::string name_of_point(const testing::TestParamInfo<Point>& info) {
  std::string name = info.param.op.name + "_" + std::string(name_of(info.param.activation)) + "_" +
                     (info.param.isa == cpu::Isa::portable ? "portable"
                      : info.param.isa == cpu::Isa::v3     ? "v3"
                                                           : "v4");
  for (char& c : name)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return name;
}

std::vector<Point> points() {
  std::vector<Point> all;
  for (const OpCase& op : all_op_cases())
    for (const DType activation : {DType::f32, DType::bf16})
      for (const cpu::Isa isa : available())
        if (activation == DType::f32 || !op.f32_only) all.push_back({op, activation, isa});
  return all;
}

// The element-wise slopes by norm, the directional ones against the whole gradient's norm.
void expect_gradient(const Input& input, const GradientReference& right, const std::vector<double>& found,
                     double tolerance) {
  std::vector<double> a, b;
  for (const auto& element : right.elements) {
    a.push_back(found[element.index]);
    b.push_back(element.slope);
  }
  double norm = 0;
  for (const double value : found) norm += value * value;
  norm = std::sqrt(norm);
  double error = 0, size = 0;
  for (std::size_t i = 0; i < a.size(); ++i) {
    error += (a[i] - b[i]) * (a[i] - b[i]);
    size += b[i] * b[i];
  }
  // Sampled elements may all be small by chance, so the root mean square of the whole gradient is their least scale.
  const double least = norm * std::sqrt(static_cast<double>(a.size()) / static_cast<double>(found.size()));
  EXPECT_LE(std::sqrt(error), tolerance * std::max(std::sqrt(size), least) + 1e-9) << "gradient of " << input.name;
  for (const auto& [direction, slope] : right.directions) {
    double along = 0;
    for (std::size_t i = 0; i < found.size(); ++i) along += found[i] * direction[i];
    EXPECT_LE(std::abs(along - slope), tolerance * norm / std::sqrt(static_cast<double>(found.size())) * 3 + 1e-9)
        << "gradient of " << input.name << " along a random direction";
  }
}

struct Results {
  Values outputs, gradients;
  std::vector<std::vector<char>> bytes;
};

Results execute(const Point& point, int threads) {
  HostMachine machine(point.isa, threads);
  Run run(machine, point.op, point.activation);
  Results results;
  point.op.forward(run);
  for (const Output& output : point.op.outputs) {
    results.outputs[output.name] = run.read(run.out(output.name));
    results.bytes.push_back(run.read_bytes(run.out(output.name)));
  }
  if (!point.op.backward) return results;
  point.op.backward(run);
  for (const Input& input : point.op.inputs) {
    if (input.gradient == GradientMode::none) continue;
    results.gradients[input.name] = run.read(run.gradient(input.name));
    results.bytes.push_back(run.read_bytes(run.gradient(input.name)));
    if (input.gradient != GradientMode::added) continue;
    const std::vector<double> base = rounded(gradient_base(point.op, input), input.stored, point.activation);
    for (std::size_t i = 0; i < base.size(); ++i) results.gradients[input.name][i] -= base[i];
  }
  return results;
}

class OpCases : public testing::TestWithParam<Point> {};

TEST_P(OpCases, AgreesWithTheOracleAndItsFiniteDifferences) {
  const Point& point = GetParam();
  const Reference& right = reference(point.op, point.activation);
  const double tolerance = point.activation == DType::f32 ? point.op.f32_tolerance : point.op.bf16_tolerance;
  for (const int threads : {1, 2}) {
    SCOPED_TRACE(testing::Message() << threads << " threads");
    const Results found = execute(point, threads);
    for (const Output& output : point.op.outputs)
      EXPECT_LE(relative_error(found.outputs.at(output.name), right.outputs.at(output.name)), tolerance) << output.name;
    if (point.op.backward)
      for (const Input& input : point.op.inputs)
        if (input.gradient != GradientMode::none)
          expect_gradient(input, right.gradients.at(input.name), found.gradients.at(input.name), tolerance);
    if (threads == 2) {
      EXPECT_TRUE(found.bytes == execute(point, threads).bytes) << "a second run gave other bits";
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Table, OpCases, testing::ValuesIn(points()), name_of_point);

}  // namespace
}  // namespace weft::test
