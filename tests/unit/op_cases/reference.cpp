#include "tests/unit/op_cases/reference.hpp"

#include <cmath>
#include <limits>

namespace weft::test {
namespace {

constexpr std::size_t whole_input = 40;  // inputs of more elements are sampled
constexpr std::size_t samples = 8, directions = 3;
constexpr double step = 1e-4;

Values empty_outputs(const OpCase& op) {
  Values out;
  for (const Output& output : op.outputs) out[output.name].assign(static_cast<std::size_t>(output.shape.numel()), 0.0);
  return out;
}

double objective(const OpCase& op, const Values& in, const Values& cotangents) {
  Values out = empty_outputs(op);
  op.oracle(in, out);
  double total = 0;
  for (const Output& output : op.outputs) {
    if (!output.differentiable) continue;
    const auto& c = cotangents.at(output.name);
    const auto& y = out.at(output.name);
    for (std::size_t i = 0; i < y.size(); ++i) total += c[i] * y[i];
  }
  return total;
}

double slope(const OpCase& op, Values in, const std::string& name, const Values& cotangents,
             const std::function<void(std::vector<double>&, double)>& move) {
  move(in[name], step);
  const double above = objective(op, in, cotangents);
  move(in[name], -2 * step);
  return (above - objective(op, in, cotangents)) / (2 * step);
}

GradientReference finite_differences(const OpCase& op, const Values& in, const std::string& name,
                                     const Values& cotangents) {
  GradientReference result;
  const std::size_t count = in.at(name).size();
  const bool whole = count <= whole_input;
  const PhiloxKey key = philox_key(7, op.name + name);
  for (std::size_t i = 0; i < (whole ? count : samples); ++i) {
    const std::size_t element = whole ? i : philox_word(key, i) % count;
    result.elements.push_back(
        {element, slope(op, in, name, cotangents, [&](std::vector<double>& x, double by) { x[element] += by; })});
  }
  if (whole) return result;
  for (std::size_t d = 0; d < directions; ++d) {
    std::vector<double> direction(count);
    const double norm = std::sqrt(static_cast<double>(count));
    for (std::size_t i = 0; i < count; ++i) direction[i] = normal(philox_key(8 + d, op.name + name), i) / norm;
    const double value = slope(op, in, name, cotangents, [&](std::vector<double>& x, double by) {
      for (std::size_t i = 0; i < count; ++i) x[i] += by * direction[i];
    });
    result.directions.push_back({std::move(direction), value});
  }
  return result;
}

Reference compute(const OpCase& op, DType activation) {
  Reference result;
  Values in, cotangents;
  for (const Input& input : op.inputs) in[input.name] = input_values(op, input, activation);
  for (const Output& output : op.outputs) cotangents[output.name] = cotangent_values(op, output, activation);
  result.outputs = empty_outputs(op);
  op.oracle(in, result.outputs);
  if (op.backward)
    for (const Input& input : op.inputs)
      if (input.gradient != GradientMode::none)
        result.gradients[input.name] = finite_differences(op, in, input.name, cotangents);
  return result;
}

}  // namespace

const Reference& reference(const OpCase& op, DType activation) {
  static std::map<std::pair<std::string, DType>, Reference> kept;
  const auto key = std::pair(op.name, activation);
  const auto found = kept.find(key);
  return found != kept.end() ? found->second : kept.emplace(key, compute(op, activation)).first->second;
}

double relative_error(const std::vector<double>& a, const std::vector<double>& b) {
  double error = 0, norm = 0;
  if (a.size() != b.size()) return std::numeric_limits<double>::infinity();
  for (std::size_t i = 0; i < a.size(); ++i) {
    if (std::isinf(b[i]) && a[i] == b[i]) continue;
    error += (a[i] - b[i]) * (a[i] - b[i]);
    norm += b[i] * b[i];
  }
  if (!std::isfinite(error) || !std::isfinite(norm)) return std::numeric_limits<double>::infinity();
  return norm == 0 ? (error < 1e-24 ? 0.0 : std::numeric_limits<double>::infinity()) : std::sqrt(error / norm);
}

}  // namespace weft::test
