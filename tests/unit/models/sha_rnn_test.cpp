// SHA-RNN and the Boom layer against transcriptions of their paper's equations (Merity 2019) in float64.
#include <gtest/gtest.h>

#include <algorithm>

#include "models/block.hpp"
#include "models/mixers/sha_rnn.hpp"
#include "tests/unit/models/transcription.hpp"

namespace weft {
namespace {

double gelu(double x) { return x / 2 * (1 + std::tanh(std::sqrt(2 / M_PI) * (x + 0.044715 * x * x * x))); }

Numbers layer_norm(const Model& model, const std::string& name, const Numbers& v) {
  double mean = 0, variance = 0;
  const auto count = static_cast<double>(v.size());
  for (const double x : v) mean += x / count;
  for (const double x : v) variance += (x - mean) * (x - mean) / count;
  Numbers y;
  for (std::size_t i = 0; i < v.size(); ++i)
    y.push_back((v[i] - mean) / std::sqrt(variance + 1e-5) * model.values.at(name + ".weight")[i] +
                model.values.at(name + ".bias")[i]);
  return y;
}

/// The sum of the chunks of GELU(W·v + b).
Numbers boom(const Model& model, const std::string& name, const Numbers& v) {
  const Numbers inner = model.affine_all(name, v);
  Numbers sum(v.size(), 0.0);
  for (std::size_t i = 0; i < inner.size(); ++i) sum[i % v.size()] += gelu(inner[i]);
  return sum;
}

/// Hochreiter & Schmidhuber 1997 with a forget gate; gates in the order input, forget, cell, output.
std::vector<Numbers> lstm(const Model& model, const std::vector<Numbers>& inputs) {
  const auto d = static_cast<std::size_t>(model.width);
  Numbers h(d, 0.0), c(d, 0.0);
  std::vector<Numbers> states;
  const Numbers& recurrent = model.values.at("lstm.hidden.weight");
  for (const Numbers& x : inputs) {
    Numbers gates = model.affine_all("lstm.input", x);
    for (std::size_t row = 0; row < gates.size(); ++row)
      for (std::size_t k = 0; k < d; ++k) gates[row] += recurrent[row * d + k] * h[k];
    for (std::size_t i = 0; i < d; ++i) {
      c[i] = sigmoid(gates[d + i]) * c[i] + sigmoid(gates[i]) * std::tanh(gates[2 * d + i]);
      h[i] = sigmoid(gates[3 * d + i]) * std::tanh(c[i]);
    }
    states.push_back(h);
  }
  return states;
}

/// What one head adds to each state: scores of σ(qs)⊙LN(hW_q + b) with σ(ks)⊙m, over values gate⊙m.
std::vector<Numbers> attention(const Model& model, const std::vector<Numbers>& states) {
  const auto d = static_cast<std::size_t>(model.width);
  const Numbers& own = model.values.at("attention.score_gates");
  const Numbers over = model.affine_all("attention.value_gates", model.values.at("attention.value_vector"));
  std::vector<Numbers> keys, values, mixed;
  for (const Numbers& h : states) {
    Numbers key = layer_norm(model, "attention.memory_norm", h), value = key;
    for (std::size_t i = 0; i < d; ++i) {
      key[i] *= sigmoid(own[d + i]);
      value[i] *= sigmoid(over[i]) * std::tanh(over[d + i]);
    }
    keys.push_back(key);
    values.push_back(value);
    Numbers query = layer_norm(model, "attention.query_norm", model.affine_all("attention.query", h));
    for (std::size_t i = 0; i < d; ++i) query[i] *= sigmoid(own[i]);
    Numbers sum(d, 0.0);
    double total = 0;
    for (std::size_t s = 0; s < keys.size(); ++s) {
      double score = 0;
      for (std::size_t i = 0; i < d; ++i) score += query[i] * keys[s][i];
      const double weight = std::exp(score / std::sqrt(static_cast<double>(d)));
      total += weight;
      for (std::size_t i = 0; i < d; ++i) sum[i] += weight * values[s][i];
    }
    for (double& v : sum) v /= total;
    mixed.push_back(sum);
  }
  return mixed;
}

Numbers sha_rnn_transcription(const Model& model, bool attends) {
  Numbers y;
  for (std::int64_t b = 0; b < model.batch; ++b) {
    std::vector<Numbers> inputs;
    for (std::int64_t t = 0; t < model.steps; ++t) inputs.push_back(layer_norm(model, "norm_in", model.token(b, t)));
    std::vector<Numbers> states = lstm(model, inputs);
    const std::vector<Numbers> added = attends ? attention(model, states) : std::vector<Numbers>{};
    for (std::size_t t = 0; t < states.size(); ++t) {
      for (std::size_t i = 0; attends && i < states[t].size(); ++i) states[t][i] += added[t][i];
      const Numbers out = layer_norm(model, "norm_out", states[t]);
      const Numbers fed = boom(model, "boom", layer_norm(model, "norm_boom", states[t]));
      for (std::size_t i = 0; i < out.size(); ++i) y.push_back(out[i] + fed[i]);
    }
  }
  return y;
}

MixerOptions options_of(std::int64_t layer, std::int64_t d_model = 12) {
  MixerOptions options;
  options.d_model = d_model;
  options.attention_every = 3;
  options.layer = layer;
  return options;
}

TEST(ShaRnn, ForwardAndGradientsAreThePapersWithAndWithoutAttention) {
  for (const std::int64_t layer : {1, 2})
    for (const std::int64_t steps : {2, 19}) {  // the scores of one token have no gradient
      SCOPED_TRACE(testing::Message() << "layer " << layer << ", " << steps << " tokens");
      LoneMixer lone([&](const BuildContext& build) { return make_sha_rnn(build, options_of(layer)); });
      EXPECT_EQ(lone.store.find("attention.query.weight") != nullptr, layer == 2) << "of three blocks the last attends";
      EXPECT_EQ(lone.mixer->traits().unbounded, layer != 2);
      expect_transcribed(lone, {{}, 2, steps, 12},
                         [&](const Model& model) { return sha_rnn_transcription(model, layer == 2); });
    }
}

TEST(ShaRnn, AttentionSeesTheTokensThatAStateCarries) {
  LoneMixer lone([&](const BuildContext& build) { return make_sha_rnn(build, options_of(2)); });
  // At the start the values' gate is shut.
  const Tensor& vector = lone.store.find("attention.value_gates.bias")->value();
  for (std::int64_t i = 0; i < vector.numel(); ++i) vector.mut().as<float>()[i] = 3;
  const Shape shape{1, 20, 12};
  const std::vector<float> x = normals("x", shape.numel());
  const std::vector<float> whole = lone.run(x, x, shape).y;
  MixerState state = lone.mixer->make_state(*lone.engine.memory, 1, 20, DType::f32);
  std::int64_t at = 0;
  for (const std::int64_t piece : {7, 1, 12}) {
    const std::vector<float> y = lone.go_on(std::span(x).subspan(at * 12, piece * 12), {1, piece, 12}, state);
    for (std::size_t i = 0; i < y.size(); ++i)
      ASSERT_NEAR(y[i], whole[static_cast<std::size_t>(at * 12) + i], 1e-5f) << "token " << at;
    at += piece;
  }
  MixerState forgetful = lone.mixer->make_state(*lone.engine.memory, 1, 20, DType::f32);
  lone.go_on(std::span(x).first(7 * 12), {1, 7, 12}, forgetful);
  for (std::int64_t i = 0; i < 7 * 12; ++i) forgetful.tensors[2].mut().as<float>()[i] = 0;
  const std::vector<float> y = lone.go_on(std::span(x).subspan(7 * 12, 12), {1, 1, 12}, forgetful);
  double apart = 0;
  for (std::size_t i = 0; i < y.size(); ++i)
    apart = std::max(apart, std::abs(static_cast<double>(y[i] - whole[84 + i])));
  EXPECT_GT(apart, 1e-3) << "the memory has no part in the result";
}

TEST(ShaRnn, AHeadWiderThanItsKernelIsRefusedWhereTheBlockAttends) {
  EXPECT_THROW(LoneMixer([&](const BuildContext& build) { return make_sha_rnn(build, options_of(2, 1025)); }),
               UserError);
}

/// A feed-forward layer, as a mixer that mixes nothing.
class FeedForwardAlone final : public Mixer {
 public:
  FeedForwardAlone(const BuildContext& build, const LmConfig& config) : layer_(build, config, 0.02) {}
  MixerTraits traits() const override { return {}; }
  Tensor forward(OpContext& cx, const MixerInput& input, MixerState*) const override {
    return layer_.forward(cx, input.x);
  }
  MixerState make_state(Allocator&, std::int64_t, std::int64_t, DType) const override { return {}; }

 private:
  FeedForward layer_;
};

LmConfig boom_config(std::int64_t d_ff) {
  LmConfig config;
  config.d_model = 10;
  config.d_ff = d_ff;
  config.feed_forward = FeedForwardStyle::boom;
  return config;
}

TEST(FeedForward, BoomIsTheSumOfItsChunks) {
  for (const std::int64_t d_ff : {10, 40}) {
    LoneMixer lone(
        [&](const BuildContext& build) { return std::make_unique<FeedForwardAlone>(build, boom_config(d_ff)); });
    EXPECT_EQ(lone.store.all().size(), 2u) << "one matrix and its bias";
    expect_transcribed(lone, {{}, 2, 7, 10}, [&](const Model& model) {
      Numbers y;
      for (std::int64_t row = 0; row < model.batch * model.steps; ++row) {
        const Numbers fed = boom(model, "up", model.token(row / model.steps, row % model.steps));
        y.insert(y.end(), fed.begin(), fed.end());
      }
      return y;
    });
  }
}

TEST(FeedForward, BoomOfNoWholeChunksIsRefused) {
  EXPECT_THROW(
      LoneMixer([&](const BuildContext& build) { return std::make_unique<FeedForwardAlone>(build, boom_config(25)); }),
      UserError);
}

}  // namespace
}  // namespace weft
