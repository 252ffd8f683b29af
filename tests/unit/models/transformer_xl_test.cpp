// Transformer-XL against float64 transcriptions of section 3.3 of Dai et al. 2019.
#include "models/mixers/transformer_xl.hpp"

#include <gtest/gtest.h>

#include <algorithm>

#include "tests/unit/models/transcription.hpp"

namespace weft {
namespace {

constexpr std::int64_t width = 12, heads = 3, head_dim = width / heads;

MixerOptions xl_options(bool causal = true) {
  MixerOptions options;
  options.d_model = width;
  options.heads = options.kv_heads = heads;
  options.causal = causal;
  return options;
}

MakeMixer xl(bool causal = true) {
  return [=](const BuildContext& build) { return make_transformer_xl(build, xl_options(causal)); };
}

double frequency(std::int64_t k) { return std::pow(10000.0, -2 * static_cast<double>(k) / static_cast<double>(width)); }

/// R_d: the sines, then the cosines.
Numbers sinusoid(double distance) {
  Numbers r;
  for (std::int64_t k = 0; k < width / 2; ++k) r.push_back(std::sin(distance * frequency(k)));
  for (std::int64_t k = 0; k < width / 2; ++k) r.push_back(std::cos(distance * frequency(k)));
  return r;
}

double dot(const double* a, const double* b, std::int64_t count) {
  double sum = 0;
  for (std::int64_t i = 0; i < count; ++i) sum += a[i] * b[i];
  return sum;
}

Numbers times(const Numbers& weight, const Numbers& v) {
  Numbers out;
  for (std::size_t row = 0; row < weight.size() / v.size(); ++row)
    out.push_back(dot(&weight[row * v.size()], v.data(), static_cast<std::int64_t>(v.size())));
  return out;
}

/// Tokens [begin, end) of one sequence, with keys and values of [seen, end); those before `begin` as `before` makes them.
struct Segment {
  std::int64_t seen, begin, end;
  const Model* before;
};

/// One head's place scores [Q][K] by each formulation. queries: q + v.
using Places = std::vector<Numbers> (*)(const Model& model, std::int64_t head, const std::vector<Numbers>& queries,
                                        std::int64_t keys, bool causal);

/// The paper's appendix B: the products with all distances, from the furthest down, a row moved one to the left of the
/// next, by a column of zeros and another view of the same numbers. Causal.
std::vector<Numbers> by_shift(const Model& model, std::int64_t head, const std::vector<Numbers>& queries,
                              std::int64_t keys, bool) {
  const auto rows = static_cast<std::int64_t>(queries.size());
  Numbers padded;
  for (const Numbers& query : queries) {
    padded.push_back(0);
    for (std::int64_t m = 0; m < keys; ++m) {
      const Numbers r = times(model.values.at("distance.weight"), sinusoid(static_cast<double>(keys - 1 - m)));
      padded.push_back(dot(query.data(), &r[static_cast<std::size_t>(head * head_dim)], head_dim));
    }
  }
  std::vector<Numbers> scores;
  for (std::int64_t i = 0; i < rows; ++i)
    scores.emplace_back(padded.begin() + rows + i * keys, padded.begin() + rows + (i + 1) * keys);
  return scores;
}

/// As sines and cosines of i − j split into products of i's and j's, the term is W_rᵀ(q_i + v), turned by i, times R_j.
std::vector<Numbers> by_rotation(const Model& model, std::int64_t head, const std::vector<Numbers>& queries,
                                 std::int64_t keys, bool) {
  const Numbers& weight = model.values.at("distance.weight");
  std::vector<Numbers> scores;
  for (std::size_t i = 0; i < queries.size(); ++i) {
    Numbers pulled(static_cast<std::size_t>(width), 0.0);
    for (std::int64_t d = 0; d < head_dim; ++d)
      for (std::int64_t c = 0; c < width; ++c)
        pulled[static_cast<std::size_t>(c)] += weight[static_cast<std::size_t>((head * head_dim + d) * width + c)] *
                                               queries[i][static_cast<std::size_t>(d)];
    const double position = static_cast<double>(keys) - static_cast<double>(queries.size()) + static_cast<double>(i);
    const Numbers own = sinusoid(position);
    Numbers turned(pulled.size());
    for (std::size_t k = 0; k < pulled.size() / 2; ++k) {
      // sin(i − j) = sin i cos j − cos i sin j, cos(i − j) = cos i cos j + sin i sin j.
      const std::size_t c = k + pulled.size() / 2;
      turned[k] = -pulled[k] * own[c] + pulled[c] * own[k];
      turned[c] = pulled[k] * own[k] + pulled[c] * own[c];
    }
    scores.emplace_back();
    for (std::int64_t j = 0; j < keys; ++j)
      scores.back().push_back(dot(turned.data(), sinusoid(static_cast<double>(j)).data(), width));
  }
  return scores;
}

Numbers transcription(const Model& model, const Segment& segment, bool causal, Places places) {
  const std::int64_t keys = segment.end - segment.seen, length = segment.end - segment.begin;
  Numbers y;
  for (std::int64_t b = 0; b < model.batch; ++b) {
    std::vector<Numbers> rows;  // [q|k|v] of each token that is seen
    for (std::int64_t t = segment.seen; t < segment.end; ++t) {
      const Model& of = t < segment.begin ? *segment.before : model;
      rows.push_back(of.affine_all("qkv", of.token(b, t)));
    }
    std::vector<Numbers> mixed(static_cast<std::size_t>(length), Numbers(static_cast<std::size_t>(width), 0.0));
    for (std::int64_t head = 0; head < heads; ++head) {
      const auto biased = [&](std::int64_t i, const char* bias) {
        Numbers q;
        for (std::int64_t d = head * head_dim; d < (head + 1) * head_dim; ++d)
          q.push_back(rows[static_cast<std::size_t>(keys - length + i)][static_cast<std::size_t>(d)] +
                      model.values.at(bias)[static_cast<std::size_t>(d)]);
        return q;
      };
      std::vector<Numbers> queries;
      for (std::int64_t i = 0; i < length; ++i) queries.push_back(biased(i, "place_bias"));
      const std::vector<Numbers> by_place = places(model, head, queries, keys, causal);
      for (std::int64_t i = 0; i < length; ++i) {
        const Numbers query = biased(i, "content_bias");
        const std::int64_t visible = causal ? keys - length + i + 1 : keys;
        double total = 0;
        Numbers sum(static_cast<std::size_t>(head_dim), 0.0);
        for (std::int64_t j = 0; j < visible; ++j) {
          const double* row = &rows[static_cast<std::size_t>(j)][static_cast<std::size_t>(head * head_dim)];
          const double score = dot(query.data(), row + width, head_dim) +
                               by_place[static_cast<std::size_t>(i)][static_cast<std::size_t>(j)];
          const double weight = std::exp(score / std::sqrt(static_cast<double>(head_dim)));
          total += weight;
          for (std::int64_t d = 0; d < head_dim; ++d) sum[static_cast<std::size_t>(d)] += weight * row[2 * width + d];
        }
        for (std::int64_t d = 0; d < head_dim; ++d)
          mixed[static_cast<std::size_t>(i)][static_cast<std::size_t>(head * head_dim + d)] =
              sum[static_cast<std::size_t>(d)] / total;
      }
    }
    for (const Numbers& token : mixed) {
      const Numbers out = model.affine_all("out", token);
      y.insert(y.end(), out.begin(), out.end());
    }
  }
  return y;
}

TEST(TransformerXl, ForwardAndGradientsAreThePapersByItsRelativeShift) {
  LoneMixer lone(xl());
  expect_transcribed(lone, {{}, 2, 19, width}, [](const Model& model) {
    return transcription(model, {0, 0, 19, nullptr}, true, by_shift);
  });
}

TEST(TransformerXl, ForwardAndGradientsAreThoseOfTurnedQueriesInBothDirections) {
  for (const bool causal : {true, false}) {
    LoneMixer lone(xl(causal));
    expect_transcribed(lone, {{}, 1, 11, width}, [=](const Model& model) {
      return transcription(model, {0, 0, 11, nullptr}, causal, by_rotation);
    });
  }
}

Model drawn(LoneMixer& lone, std::int64_t batch, std::int64_t steps) {
  Model model{{}, batch, steps, width};
  for (Parameter* parameter : lone.store.all()) {
    auto* data = parameter->value().mut().as<float>();
    const std::vector<float> values = normals(parameter->name().c_str(), parameter->value().numel());
    for (std::size_t i = 0; i < values.size(); ++i) data[i] = 0.4f * values[i];
    parameter->changed();
    model.values[parameter->name()] = Numbers(data, data + values.size());
  }
  const std::vector<float> x = normals("x", batch * steps * width);
  model.values["x"] = Numbers(x.begin(), x.end());
  return model;
}

// Segments longer and shorter than the memory, which forgets what is older.
TEST(TransformerXl, ASegmentSeesTheMemoryAndItselfAlone) {
  constexpr std::int64_t memory = 5, steps = 24;
  LoneMixer lone(xl());
  const Model model = drawn(lone, 1, steps);
  MixerState state = lone.mixer->make_state(*lone.engine.memory, 1, memory, DType::f32);
  std::int64_t at = 0;
  for (const std::int64_t piece : {3, 1, 9, 1, 1, 7, 2}) {
    const Numbers& x = model.values.at("x");
    const std::vector<float> part(x.begin() + at * width, x.begin() + (at + piece) * width);
    const std::vector<float> y = lone.go_on(part, {1, piece, width}, state);
    const Numbers right =
        transcription(model, {std::max<std::int64_t>(0, at - memory), at, at + piece, &model}, true, by_shift);
    ASSERT_EQ(y.size(), right.size());
    for (std::size_t i = 0; i < y.size(); ++i) ASSERT_NEAR(y[i], right[i], 2e-5) << "token " << at;
    at += piece;
  }
  EXPECT_EQ(at, steps);
  EXPECT_EQ(state.length, steps);
}

TEST(TransformerXl, GradientsOfASegmentTakeItsMemoryAsGiven) {
  constexpr std::int64_t before = 6, steps = 13, memory = 4;
  LoneMixer lone(xl());
  Model model = drawn(lone, 2, steps);
  const auto segment = [&](std::int64_t begin, std::int64_t end) {
    std::vector<float> part;
    for (std::int64_t b = 0; b < model.batch; ++b)
      for (std::int64_t t = begin; t < end; ++t)
        for (const double value : model.token(b, t)) part.push_back(static_cast<float>(value));
    return part;
  };
  MixerState state = lone.mixer->make_state(*lone.engine.memory, model.batch, memory, DType::f32);
  lone.go_on(segment(0, before), {model.batch, before, width}, state);

  constexpr std::int64_t length = steps - before;
  const Shape shape{model.batch, length, width};
  const std::vector<float> cotangent = normals("cotangent", shape.numel());
  Tape tape;
  OpContext cx{lone.engine.exec, &tape, DType::f32, {}, nullptr};
  cx.tokens = {0, length, length, {before, 0}, length};
  lone.store.begin_step();
  tape.begin(MicroBatch::last);
  Tensor x = lone.tensor(segment(before, steps), shape);
  tape.watch(x);
  const Tensor y = lone.mixer->forward(cx, {x}, &state);
  const std::vector<float> found = LoneMixer::values(y);
  tape.backward(lone.engine.exec, y, lone.tensor(cotangent, shape));
  finish_unused(lone.engine.exec, lone.store.all());

  const Model given = model;
  const auto equations = [&] { return transcription(model, {before - memory, before, steps, &given}, true, by_shift); };
  const Numbers right = equations();
  for (std::size_t i = 0; i < right.size(); ++i) ASSERT_NEAR(found[i], right[i], 2e-5);
  const auto expect_slope = [&](const std::string& name, const std::vector<float>& direction, const float* grad,
                                const auto& add) {
    constexpr double step = 1e-5;
    const Numbers at = model.values[name];
    const auto objective = [&](double by) {
      add(model.values[name], by);
      const Numbers moved = equations();
      model.values[name] = at;
      double sum = 0;
      for (std::size_t i = 0; i < moved.size(); ++i) sum += moved[i] * static_cast<double>(cotangent[i]);
      return sum;
    };
    double along = 0, size = 0;
    for (std::size_t i = 0; i < direction.size(); ++i) {
      along += static_cast<double>(grad[i]) * static_cast<double>(direction[i]);
      size += static_cast<double>(grad[i]) * static_cast<double>(grad[i]);
    }
    EXPECT_NEAR(along, (objective(step) - objective(-step)) / (2 * step), 3e-5 * std::sqrt(size)) << name;
  };
  for (Parameter* parameter : lone.store.all()) {
    const std::vector<float> direction = normals((parameter->name() + "direction").c_str(), parameter->grad().numel());
    expect_slope(parameter->name(), direction, parameter->grad().view().as<float>(), [&](Numbers& values, double by) {
      for (std::size_t i = 0; i < values.size(); ++i) values[i] += by * static_cast<double>(direction[i]);
    });
  }
  const std::vector<float> direction = normals("xdirection", shape.numel());
  expect_slope("x", direction, tape.grad_of(x).view().as<float>(), [&](Numbers& values, double by) {
    for (std::int64_t b = 0; b < model.batch; ++b)
      for (std::int64_t i = 0; i < length * width; ++i)
        values[static_cast<std::size_t>((b * steps + before) * width + i)] +=
            by * static_cast<double>(direction[static_cast<std::size_t>(b * length * width + i)]);
  });
}

TEST(TransformerXl, AnOddWidthAndAHeadWiderThanItsKernelAreRefused) {
  for (const auto& [d_model, of] : {std::pair<std::int64_t, std::int64_t>{9, 3}, {260, 1}}) {
    MixerOptions options = xl_options();
    options.d_model = d_model;
    options.heads = options.kv_heads = of;
    EXPECT_THROW(LoneMixer([&](const BuildContext& build) { return make_transformer_xl(build, options); }), UserError);
  }
}

}  // namespace
}  // namespace weft
