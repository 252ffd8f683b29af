#include "tests/unit/op_cases/check.hpp"

#include <gtest/gtest.h>

#include <cctype>
#include <cmath>
#include <cstring>

#include "core/tensor/caching_allocator.hpp"
#include "tests/unit/op_cases/reference.hpp"

namespace weft::test {

namespace {

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

}  // namespace

HostMachine::HostMachine(const KernelTable& kernels, std::unique_ptr<BackendState> state, int threads)
    : memory_(make_caching_allocator(make_host_memory())),
      exec_(std::make_unique<ExecContext>(kernels, *memory_, threads)) {
  exec_->backend = std::move(state);
}
void HostMachine::to_device(void* device, const void* host, std::size_t bytes) { std::memcpy(device, host, bytes); }
void HostMachine::to_host(void* host, const void* device, std::size_t bytes) { std::memcpy(host, device, bytes); }

Results execute(Machine& machine, const OpCase& op, DType activation) {
  Run run(machine, op, activation);
  Results results;
  op.forward(run);
  for (const Output& output : op.outputs) {
    results.outputs[output.name] = run.read(run.out(output.name));
    results.bytes.push_back(run.read_bytes(run.out(output.name)));
  }
  if (!op.backward) return results;
  op.backward(run);
  for (const Input& input : op.inputs) {
    if (input.gradient == GradientMode::none) continue;
    results.gradients[input.name] = run.read(run.gradient(input.name));
    results.bytes.push_back(run.read_bytes(run.gradient(input.name)));
    if (input.gradient != GradientMode::added) continue;
    const std::vector<double> base = rounded(gradient_base(op, input), input.stored, activation);
    for (std::size_t i = 0; i < base.size(); ++i) results.gradients[input.name][i] -= base[i];
  }
  return results;
}

void expect_right(const OpCase& op, DType activation, const Results& found) {
  const Reference& right = reference(op, activation);
  const double tolerance = activation == DType::f32 ? op.f32_tolerance : op.bf16_tolerance;
  for (const Output& output : op.outputs)
    EXPECT_LE(relative_error(found.outputs.at(output.name), right.outputs.at(output.name)), tolerance) << output.name;
  if (!op.backward) return;
  for (const Input& input : op.inputs)
    if (input.gradient != GradientMode::none)
      expect_gradient(input, right.gradients.at(input.name), found.gradients.at(input.name), tolerance);
}

std::string test_name(std::string text) {
  for (char& c : text)
    if (!std::isalnum(static_cast<unsigned char>(c))) c = '_';
  return text;
}

}  // namespace weft::test
