// Recurrent mixers against transcriptions of their papers' equations in float64, and against finite differences of these.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "core/base/philox.hpp"
#include "core/io/safetensors.hpp"
#include "core/ops/norm.hpp"
#include "core/ops/scan.hpp"
#include "models/mixers/affine_recurrence.hpp"
#include "models/mixers/mean.hpp"
#include "models/mixers/sru.hpp"
#include "tests/unit/models/lone_mixer.hpp"

namespace weft {
namespace {

using Numbers = std::vector<double>;

double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double positive(double x) { return x >= 0 ? x + 0.5 : sigmoid(x); }
double gelu(double x) { return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

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

struct Case {
  std::string name;
  AffineRecurrenceOptions recurrence;
  bool causal = true;
};

void PrintTo(const Case& one, std::ostream* out) { *out << one.name; }

/// y of the whole mixer. Bradbury et al. 2017, equations 1 to 4; Feng et al. 2024, sections 3.1 and 3.2.
Numbers transcription(const Case& one, const Model& model) {
  const std::int64_t w = model.width;
  const int gates = traits_of(one.recurrence.cell).gates;
  Numbers hidden(model.values.at("x").size());
  for (std::int64_t b = 0; b < model.batch; ++b) {
    std::vector<Numbers> u;
    for (std::int64_t t = 0; t < model.steps; ++t) {
      Numbers seen;
      for (std::int64_t back = 0; back < one.recurrence.window; ++back) {
        const Numbers token = model.token(b, t - back);
        seen.insert(seen.end(), token.begin(), token.end());
      }
      u.push_back(model.affine_all("in", seen));
      EXPECT_EQ(u.back().size(), static_cast<std::size_t>(gates * w));
    }
    for (std::int64_t d = 0; d < w; ++d) {
      const bool reverse = !one.causal && d >= w / 2;
      double h = 0;
      for (std::int64_t i = 0; i < model.steps; ++i) {
        const std::int64_t t = reverse ? model.steps - 1 - i : i;
        const auto gate = [&](int k) { return u[static_cast<std::size_t>(t)][static_cast<std::size_t>(k * w + d)]; };
        double out_gate = 1;
        switch (one.recurrence.cell) {
          case ScanCell::qrnn_fo: out_gate = sigmoid(gate(2)); [[fallthrough]];
          case ScanCell::qrnn_f: h = sigmoid(gate(1)) * h + (1 - sigmoid(gate(1))) * std::tanh(gate(0)); break;
          case ScanCell::mingru: h = (1 - sigmoid(gate(0))) * h + sigmoid(gate(0)) * positive(gate(1)); break;
          case ScanCell::minlstm: {
            const double f = sigmoid(gate(0)), in = sigmoid(gate(1));
            h = f / (f + in) * h + in / (f + in) * positive(gate(2));
            break;
          }
          default: ADD_FAILURE();
        }
        hidden[model.index(b, t, d)] = out_gate * h;
      }
    }
  }
  Numbers y;
  for (std::int64_t row = 0; row < model.batch * model.steps; ++row) {
    const Numbers out = model.affine_all("out", {hidden.begin() + row * w, hidden.begin() + (row + 1) * w});
    y.insert(y.end(), out.begin(), out.end());
  }
  return y;
}

Numbers mean_transcription(const Model& model) {
  Numbers y;
  for (std::int64_t b = 0; b < model.batch; ++b) {
    Numbers sum(static_cast<std::size_t>(model.width), 0.0);
    for (std::int64_t t = 0; t < model.steps; ++t) {
      Numbers inner = model.affine_all("up", model.token(b, t));
      for (double& v : inner) v = gelu(v);
      const Numbers value = model.affine_all("down", inner);
      Numbers mean = sum;
      for (std::size_t d = 0; d < sum.size(); ++d) {
        sum[d] += value[d];
        mean[d] = sum[d] / static_cast<double>(t + 1);
      }
      const Numbers out = model.affine_all("out", mean);
      y.insert(y.end(), out.begin(), out.end());
    }
  }
  return y;
}

double norm(const Numbers& v) {
  double sum = 0;
  for (const double x : v) sum += x * x;
  return std::sqrt(sum);
}

std::vector<float> normals(const char* name, std::int64_t count) {
  std::vector<float> all;
  for (std::int64_t i = 0; i < count; ++i)
    all.push_back(static_cast<float>(normal(philox_key(5, name), static_cast<std::uint64_t>(i))));
  return all;
}

/// y by norm, and the gradient of Σ cotangent·y along a random direction in each parameter and in x.
void expect_transcribed(LoneMixer& lone, Model model, const std::function<Numbers(const Model&)>& equations) {
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

class AffineRecurrenceTest : public ::testing::TestWithParam<Case> {};

INSTANTIATE_TEST_SUITE_P(Papers, AffineRecurrenceTest,
                         ::testing::Values(Case{"qrnn_f_window_1", {ScanCell::qrnn_f, 1}},
                                           Case{"qrnn_f_window_2", {ScanCell::qrnn_f, 2}},
                                           Case{"qrnn_fo_window_1", {ScanCell::qrnn_fo, 1}},
                                           Case{"qrnn_fo_window_2", {ScanCell::qrnn_fo, 2}},
                                           Case{"qrnn_fo_window_3_of_both_directions", {ScanCell::qrnn_fo, 3}, false},
                                           Case{"mingru", {ScanCell::mingru, 1}},
                                           Case{"minlstm", {ScanCell::minlstm, 1}},
                                           Case{"minlstm_of_both_directions", {ScanCell::minlstm, 1}, false}),
                         [](const auto& row) { return row.param.name; });

TEST_P(AffineRecurrenceTest, ForwardAndGradientsAreThePapers) {
  MixerOptions options;
  options.d_model = 6;
  options.causal = GetParam().causal;
  for (const std::int64_t steps : {1, 2, 41}) {
    LoneMixer lone(
        [&](const BuildContext& build) { return make_affine_recurrence(build, options, GetParam().recurrence); });
    expect_transcribed(lone, {{}, 2, steps, 6}, [&](const Model& model) { return transcription(GetParam(), model); });
  }
}

TEST(MeanMixer, ForwardAndGradientsAreThoseOfTheRunningMean) {
  MixerOptions options;
  options.d_model = 5;
  LoneMixer lone([&](const BuildContext& build) { return make_mean(build, options); });
  expect_transcribed(lone, {{}, 2, 37, 5}, mean_transcription);
}

struct PackageCase {
  std::string name;
  std::int64_t d_model;
  bool causal;
  SruOptions sru;
};

void PrintTo(const PackageCase& one, std::ostream* out) { *out << one.name; }

class SruPackageTest : public ::testing::TestWithParam<PackageCase> {};

INSTANTIATE_TEST_SUITE_P(
    Forms, SruPackageTest,
    ::testing::Values(PackageCase{"plain", 12, true, {.highway_bias = -1, .rescale = true}},
                      PackageCase{"tanh", 12, true, {.tanh = true, .highway_bias = -1, .rescale = true}},
                      PackageCase{"four", 10, true, {.width = 14}}, PackageCase{"bidirectional", 12, false, {}},
                      PackageCase{"affine", 12, true, {.state_in_gates = false}}),
    [](const auto& row) { return row.param.name; });

// tests/reference/make_sru_reference.py wrote the file.
TEST_P(SruPackageTest, ForwardAndEveryGradientAreThePackages) {
  const SafetensorsReader file(std::filesystem::path(WEFT_REFERENCE_DATA) / "sru.safetensors");
  const auto floats = [&](const std::string& name) {
    const View view = file.view(GetParam().name + "." + name);
    return std::span(view.as<float>(), static_cast<std::size_t>(view.numel()));
  };
  MixerOptions options;
  options.d_model = GetParam().d_model;
  options.causal = GetParam().causal;
  LoneMixer lone([&](const BuildContext& build) { return make_sru_with(build, options, GetParam().sru); });
  for (Parameter* parameter : lone.store.all()) {
    const std::span<const float> values = floats(parameter->name());
    ASSERT_EQ(values.size(), static_cast<std::size_t>(parameter->value().numel())) << parameter->name();
    std::ranges::copy(values, parameter->value().mut().as<float>());
    parameter->changed();
  }
  const auto expect_near = [&](std::span<const float> found, const std::string& name) {
    const std::span<const float> right = floats(name);
    ASSERT_EQ(found.size(), right.size()) << name;
    Numbers apart;
    for (std::size_t i = 0; i < right.size(); ++i)
      apart.push_back(static_cast<double>(found[i]) - static_cast<double>(right[i]));
    EXPECT_LT(norm(apart), 1e-5 * norm({right.begin(), right.end()})) << name;
  };
  const LoneMixer::Gradients found =
      lone.run(floats("x"), floats("cotangent"), file.view(GetParam().name + ".x").shape);
  expect_near(found.y, "y");
  expect_near(found.dx, "grad.x");
  for (Parameter* parameter : lone.store.all())
    expect_near({parameter->grad().view().as<float>(), static_cast<std::size_t>(parameter->grad().numel())},
                "grad." + parameter->name());
}

TEST(AffineRecurrence, ManyThreadsOnOneLongSequenceGiveTheSameAsOne) {
  MixerOptions options;
  options.d_model = 8;
  const Shape shape{1, 700, 8};
  const std::vector<float> x = normals("x", shape.numel()), cotangent = normals("cotangent", shape.numel());
  for (const ScanCell cell : {ScanCell::qrnn_fo, ScanCell::mingru, ScanCell::minlstm}) {
    const MakeMixer make = [&](const BuildContext& build) { return make_affine_recurrence(build, options, {cell, 1}); };
    LoneMixer one(make, 1), four(make, 4);
    const auto a = one.run(x, cotangent, shape), b = four.run(x, cotangent, shape);
    for (std::size_t i = 0; i < a.y.size(); ++i) {
      ASSERT_NEAR(a.y[i], b.y[i], 1e-5f) << i;
      ASSERT_NEAR(a.dx[i], b.dx[i], 1e-5f) << i;
    }
  }
}

TEST(Scan, GradientsGoThroughAStateThatJoinsTwoScans) {
  constexpr std::int64_t batch = 2, steps = 41, first = 17, width = 3;
  CpuEngine engine;
  const auto tensor = [&](const std::vector<float>& values, Shape shape) {
    Tensor result = Tensor::empty(*engine.memory, shape, DType::f32, MemoryUse::activation);
    std::ranges::copy(values, result.mut().as<float>());
    return result;
  };
  const auto tokens = [&](const std::vector<float>& all, std::int64_t begin, std::int64_t end, std::int64_t cols) {
    std::vector<float> some;
    for (std::int64_t b = 0; b < batch; ++b)
      some.insert(some.end(), all.begin() + (b * steps + begin) * cols, all.begin() + (b * steps + end) * cols);
    return tensor(some, {batch, end - begin, cols});
  };
  const std::vector<float> u = normals("u", batch * steps * 3 * width), dh = normals("dh", batch * steps * width);
  const ops::ScanOptions options{.cell = ScanCell::qrnn_fo};
  const auto gradients = [&](const std::vector<std::int64_t>& borders) {
    Tape tape;
    OpContext cx{engine.exec, &tape, DType::f32, {}, nullptr};
    tape.begin(MicroBatch::last);
    std::vector<Tensor> parts;
    Tensor state, loss;
    // Σ weights·h as an operation; nobody reads its value.
    const auto weighted = [&](const Tensor& h, const Tensor& weights) {
      Tensor sum = tensor({0.0f}, {1});
      tape.record({"weighted", {&h}, {&sum}, {}, {}, {}}, [weights](BackwardPass& pass) { pass.give(0, weights); });
      return sum;
    };
    parts.reserve(borders.size());
    for (std::size_t i = 0; i + 1 < borders.size(); ++i) {
      parts.push_back(tokens(u, borders[i], borders[i + 1], 3 * width));
      tape.watch(parts.back());
      const ops::Scanned scanned = ops::scan(cx, options, parts.back(), {}, {}, state);
      state = scanned.final;
      const Tensor one = weighted(scanned.h, tokens(dh, borders[i], borders[i + 1], width));
      loss = loss.defined() ? ops::add(cx, loss, one) : one;
    }
    tape.backward(engine.exec, loss);
    std::vector<float> all(u.size());
    for (std::size_t i = 0; i < parts.size(); ++i) {
      const Tensor gradient = tape.grad_of(parts[i]);
      const std::int64_t count = borders[i + 1] - borders[i];
      for (std::int64_t b = 0; b < batch; ++b)
        std::copy_n(gradient.view().as<float>() + b * count * 3 * width, count * 3 * width,
                    all.begin() + (b * steps + borders[i]) * 3 * width);
    }
    return all;
  };
  const std::vector<float> whole = gradients({0, steps}), joined = gradients({0, first, steps});
  for (std::size_t i = 0; i < whole.size(); ++i) ASSERT_NEAR(whole[i], joined[i], 1e-6f) << i;
}

TEST(Scan, ASequencesDropoutIsItsOwnInEveryMicroBatch) {
  constexpr std::int64_t batch = 5, cols = 13;
  CpuEngine engine;
  const PhiloxKey key{1, 2};
  OpContext cx{engine.exec, nullptr, DType::f32, {}, &key};
  const Tensor whole = ops::sequence_dropout(cx, batch, cols, 0.4f, 0);
  cx.tokens.first_sequence = 2;
  const Tensor part = ops::sequence_dropout(cx, 2, cols, 0.4f, 0);
  std::map<float, int> seen;
  for (std::int64_t i = 0; i < 2 * cols; ++i) {
    const float factor = part.view().as<float>()[i];
    EXPECT_EQ(factor, whole.view().as<float>()[2 * cols + i]) << i;
    ++seen[factor];
  }
  EXPECT_EQ(seen.size(), 2u) << "factors are 0 and 1/(1-p)";
  EXPECT_FALSE(ops::sequence_dropout(cx, batch, cols, 0, 0).defined());
}

TEST(AffineRecurrence, AnOddWidthCannotServeTwoDirections) {
  MixerOptions options;
  options.d_model = 5;
  options.causal = false;
  EXPECT_THROW(LoneMixer([&](const BuildContext& build) { return make_qrnn(build, options); }), UserError);
}

}  // namespace
}  // namespace weft
