// SRU against the public package, SRU++ against a transcription of its paper in float64.
#include <gtest/gtest.h>

#include <algorithm>

#include "core/io/safetensors.hpp"
#include "models/mixers/sru.hpp"
#include "models/mixers/sru_plus_plus.hpp"
#include "tests/unit/models/transcription.hpp"

namespace weft {
namespace {

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

/// Lei 2021, section 3, in one direction or in both: a head over all tokens that it may see, no positions.
Numbers sru_plus_plus_transcription(const Model& model, bool attends, bool causal) {
  const std::int64_t d = model.width, steps = model.steps;
  const auto narrow = static_cast<std::int64_t>(model.values.at("norm.bias").size());
  const auto product = [&](const char* name, const Numbers& v, std::int64_t begin, std::int64_t end) {
    const Numbers& weight = model.values.at(name);
    Numbers out;
    for (std::int64_t row = begin; row < end; ++row) {
      out.push_back(0);
      for (std::size_t k = 0; k < v.size(); ++k)
        out.back() += weight[static_cast<std::size_t>(row) * v.size() + k] * v[k];
    }
    return out;
  };
  const auto dot = [](const Numbers& a, const Numbers& b) {
    double sum = 0;
    for (std::size_t i = 0; i < a.size(); ++i) sum += a[i] * b[i];
    return sum;
  };
  Numbers y(model.values.at("x").size());
  for (std::int64_t b = 0; b < model.batch; ++b) {
    std::vector<Numbers> z, u;
    for (std::int64_t t = 0; t < steps; ++t) z.push_back(product("in.weight", model.token(b, t), 0, narrow));
    for (std::int64_t t = 0; t < steps; ++t) {
      Numbers row = z[static_cast<std::size_t>(t)];
      if (attends) {
        double total = 0;
        Numbers mixed(row.size(), 0.0);
        for (std::int64_t s = 0; s < (causal ? t + 1 : steps); ++s) {
          const Numbers& seen = z[static_cast<std::size_t>(s)];
          const Numbers key = product("kv.weight", seen, 0, narrow),
                        value = product("kv.weight", seen, narrow, 2 * narrow);
          const double weight = std::exp(dot(row, key) / std::sqrt(static_cast<double>(narrow)));
          total += weight;
          for (std::size_t k = 0; k < mixed.size(); ++k) mixed[k] += weight * value[k];
        }
        for (std::size_t k = 0; k < row.size(); ++k) row[k] += model.values.at("alpha")[0] * mixed[k] / total;
      }
      double mean = 0, variance = 0;
      for (const double v : row) mean += v / static_cast<double>(narrow);
      for (const double v : row) variance += (v - mean) * (v - mean) / static_cast<double>(narrow);
      for (std::size_t k = 0; k < row.size(); ++k)
        row[k] = (row[k] - mean) / std::sqrt(variance + 1e-5) * model.values.at("norm.weight")[k] +
                 model.values.at("norm.bias")[k];
      u.push_back(product("up.weight", row, 0, 3 * d));
    }
    for (std::int64_t i = 0; i < d; ++i) {
      const auto channel = static_cast<std::size_t>(i);
      const auto own = [&](const char* name) { return model.values.at(name)[channel]; };
      double c = 0;
      for (std::int64_t step = 0; step < steps; ++step) {
        const std::int64_t t = !causal && i >= d / 2 ? steps - 1 - step : step;
        const auto gate = [&](std::int64_t k) {
          return u[static_cast<std::size_t>(t)][static_cast<std::size_t>(k * d + i)];
        };
        const double f = sigmoid(gate(1) + own("v_f") * c + own("b_f")),
                     r = sigmoid(gate(2) + own("v_r") * c + own("b_r"));
        const double x = model.values.at("x")[model.index(b, t, i)];
        c = f * c + (1 - f) * gate(0);
        y[model.index(b, t, i)] = (c - x) * r + x;
      }
    }
  }
  return y;
}

MixerOptions sru_plus_plus_options(std::int64_t layer, bool causal) {
  MixerOptions options;
  options.d_model = 12;
  options.attention_width = 8;
  options.attention_every = 3;
  options.layer = layer;
  options.causal = causal;
  return options;
}

TEST(SruPlusPlus, ForwardAndGradientsAreThePapersWithAndWithoutAttention) {
  for (const bool causal : {true, false})
    for (const std::int64_t layer : {1, 2}) {
      SCOPED_TRACE(testing::Message() << "layer " << layer << (causal ? "" : ", both directions"));
      LoneMixer lone(
          [&](const BuildContext& build) { return make_sru_plus_plus(build, sru_plus_plus_options(layer, causal)); });
      EXPECT_EQ(lone.store.find("alpha") != nullptr, layer == 2) << "of three blocks the last attends";
      expect_transcribed(lone, {{}, 2, 19, 12},
                         [&](const Model& model) { return sru_plus_plus_transcription(model, layer == 2, causal); });
    }
}

TEST(SruPlusPlus, AttentionSeesTheTokensThatAStateCarries) {
  LoneMixer lone([&](const BuildContext& build) { return make_sru_plus_plus(build, sru_plus_plus_options(2, true)); });
  *lone.store.find("alpha")->value().mut().as<float>() = 1.5f;  // it starts at 0: no attention
  const Shape shape{1, 20, 12};
  const std::vector<float> x = normals("x", shape.numel());
  MixerState whole_state = lone.mixer->make_state(*lone.engine.memory, 1, 20, DType::f32);
  const std::vector<float> whole = lone.go_on(x, shape, whole_state);
  MixerState state = lone.mixer->make_state(*lone.engine.memory, 1, 20, DType::f32);
  std::int64_t at = 0;
  for (const std::int64_t piece : {7, 1, 12}) {
    const std::vector<float> y = lone.go_on(std::span(x).subspan(at * 12, piece * 12), {1, piece, 12}, state);
    for (std::size_t i = 0; i < y.size(); ++i)
      ASSERT_NEAR(y[i], whole[static_cast<std::size_t>(at * 12) + i], 1e-5f) << "token " << at;
    at += piece;
  }
}

TEST(SruPlusPlus, AttentionWiderThanItsKernelIsRefused) {
  MixerOptions options = sru_plus_plus_options(2, true);
  options.attention_width = 300;
  EXPECT_THROW(LoneMixer([&](const BuildContext& build) { return make_sru_plus_plus(build, options); }), UserError);
}

}  // namespace
}  // namespace weft
