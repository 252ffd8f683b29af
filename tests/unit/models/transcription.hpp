// A mixer against a transcription of its paper's equations in float64, and against finite differences of that.
#pragma once
#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>

#include "core/base/philox.hpp"
#include "tests/unit/models/lone_mixer.hpp"

namespace weft {

using Numbers = std::vector<double>;

inline double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }

/// Parameters and input by name; x is [B, T, D].
struct Model {
  std::map<std::string, Numbers> values;
  std::int64_t batch, steps, width;

  std::size_t index(std::int64_t b, std::int64_t t, std::int64_t d) const {
    return static_cast<std::size_t>((b * steps + t) * width + d);
  }
  /// Row `row` of W·v + b.
  double affine(const std::string& name, std::int64_t row, const Numbers& v) const {
    double sum = values.at(name + ".bias")[static_cast<std::size_t>(row)];
    const Numbers& weight = values.at(name + ".weight");
    for (std::size_t k = 0; k < v.size(); ++k) sum += weight[static_cast<std::size_t>(row) * v.size() + k] * v[k];
    return sum;
  }
  Numbers affine_all(const std::string& name, const Numbers& v) const {
    Numbers all(values.at(name + ".bias").size());
    for (std::size_t row = 0; row < all.size(); ++row) all[row] = affine(name, static_cast<std::int64_t>(row), v);
    return all;
  }
  Numbers token(std::int64_t b, std::int64_t t) const {
    Numbers row(static_cast<std::size_t>(width), 0.0);
    if (t >= 0)
      for (std::int64_t d = 0; d < width; ++d) row[static_cast<std::size_t>(d)] = values.at("x")[index(b, t, d)];
    return row;
  }
};

inline double norm(const Numbers& v) {
  double sum = 0;
  for (const double x : v) sum += x * x;
  return std::sqrt(sum);
}

inline std::vector<float> normals(const char* name, std::int64_t count) {
  std::vector<float> all;
  for (std::int64_t i = 0; i < count; ++i)
    all.push_back(static_cast<float>(normal(philox_key(5, name), static_cast<std::uint64_t>(i))));
  return all;
}

/// y by norm, and the gradient of Σ cotangent·y along a random direction in each parameter and in x.
inline void expect_transcribed(LoneMixer& lone, Model model, const std::function<Numbers(const Model&)>& equations) {
  for (Parameter* parameter : lone.store.all()) {  // large enough that every gate opens and closes
    auto* data = parameter->value().mut().as<float>();
    const std::vector<float> values = normals(parameter->name().c_str(), parameter->value().numel());
    const double scale = parameter->value().shape().rank() == 2 ? 1.5 / std::sqrt(parameter->value().shape()[1]) : 0.5;
    for (std::size_t i = 0; i < values.size(); ++i) data[i] = values[i] * static_cast<float>(scale);
    parameter->changed();
    model.values[parameter->name()] = Numbers(data, data + values.size());
  }
  const Shape shape{model.batch, model.steps, model.width};
  const std::vector<float> x = normals("x", shape.numel()), cotangent = normals("cotangent", shape.numel());
  model.values["x"] = Numbers(x.begin(), x.end());
  const LoneMixer::Gradients found = lone.run(x, cotangent, shape);
  const Numbers right = equations(model);
  Numbers apart = right;
  for (std::size_t i = 0; i < apart.size(); ++i) apart[i] -= static_cast<double>(found.y[i]);
  EXPECT_LT(norm(apart), 1e-5 * norm(right));

  for (auto& [name, values] : model.values) {
    const float* grad = name == "x" ? found.dx.data() : lone.store.find(name)->grad().view().as<float>();
    const Numbers gradient(grad, grad + values.size()), at = values;
    const std::vector<float> direction = normals((name + "direction").c_str(), static_cast<std::int64_t>(at.size()));
    const auto objective = [&](double step) {
      for (std::size_t i = 0; i < at.size(); ++i) values[i] = at[i] + step * static_cast<double>(direction[i]);
      const Numbers y = equations(model);
      values = at;
      double sum = 0;
      for (std::size_t i = 0; i < y.size(); ++i) sum += y[i] * static_cast<double>(cotangent[i]);
      return sum;
    };
    double along = 0;
    for (std::size_t i = 0; i < at.size(); ++i) along += gradient[i] * static_cast<double>(direction[i]);
    constexpr double step = 1e-5;
    EXPECT_NEAR(along, (objective(step) - objective(-step)) / (2 * step), 3e-5 * norm(gradient)) << name;
  }
}

}  // namespace weft
