// Recurrent mixers against transcriptions of their papers' equations in float64, and against finite differences of these.
#include <gtest/gtest.h>

#include <algorithm>
#include <map>

#include "core/ops/norm.hpp"
#include "core/ops/scan.hpp"
#include "models/mixers/affine_recurrence.hpp"
#include "models/mixers/mean.hpp"
#include "tests/unit/models/transcription.hpp"

namespace weft {
namespace {

double positive(double x) { return x >= 0 ? x + 0.5 : sigmoid(x); }
double gelu(double x) { return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

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
  const Tensor whole = ops::sequence_dropout(cx, batch, cols, {0, cols}, 0.4f, 0);
  cx.tokens.first_sequence = 2;
  const Tensor part = ops::sequence_dropout(cx, 2, cols, {0, cols}, 0.4f, 0);
  std::map<float, int> seen;
  for (std::int64_t i = 0; i < 2 * cols; ++i) {
    const float factor = part.view().as<float>()[i];
    EXPECT_EQ(factor, whole.view().as<float>()[2 * cols + i]) << i;
    ++seen[factor];
  }
  EXPECT_EQ(seen.size(), 2u) << "factors are 0 and 1/(1-p)";
  EXPECT_FALSE(ops::sequence_dropout(cx, batch, cols, {0, cols}, 0, 0).defined());
}

TEST(AffineRecurrence, AnOddWidthCannotServeTwoDirections) {
  MixerOptions options;
  options.d_model = 5;
  options.causal = false;
  EXPECT_THROW(LoneMixer([&](const BuildContext& build) { return make_qrnn(build, options); }), UserError);
}

}  // namespace
}  // namespace weft
