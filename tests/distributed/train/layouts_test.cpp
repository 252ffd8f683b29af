// Data-parallel ranks, and gradient accumulation in their place, train what one rank trains (docs/numerics.md).
#include <cmath>
#include <cstring>
#include <map>

#include "launcher/training_step.hpp"
#include "tests/distributed/mpi_test.hpp"
#include "tests/distributed/train/breakable_transport.hpp"

namespace weft::test {
namespace {

constexpr std::int64_t batch = 24, seq = 23;
constexpr int steps = 30;

enum class Style : std::uint8_t { gpt2, llama };

/// Sizes that few numbers of ranks divide.
LmConfig config(Style style) {
  LmConfig lm;
  lm.layers = 2;
  lm.d_model = 48;
  lm.heads = lm.kv_heads = 6;
  lm.d_ff = 100;
  lm.max_seq = seq;
  lm.dropout = 0.1f;
  if (style == Style::gpt2) return lm;
  lm.norm = NormStyle::rms;
  lm.feed_forward = FeedForwardStyle::swiglu;
  lm.positions = PositionStyle::rotary;
  lm.bias = lm.tied = false;
  lm.d_model = 64;
  lm.heads = 8;
  lm.kv_heads = 2;
  lm.d_ff = 90;
  lm.dropout = 0;
  return lm;
}

/// Stable: differences of rounding do not grow.
double learning_rate(Style style) { return style == Style::gpt2 ? 3e-3 : 1.5e-3; }

TokenSources text() {
  std::string all;
  for (int i = 0; all.size() < 4000; ++i) all += fmt::format("line {} of {} says {}; ", i, i * i % 17, i % 3 ? "warp" : "weft");
  return {memory_tokens("text", all)};
}

struct Training {
  std::vector<double> losses, norms;
  std::vector<std::vector<float>> gradients;  ///< of step 1, whole, by parameter
  std::vector<std::vector<float>> initial;    ///< values before it, whole
  std::vector<float> values;                  ///< this rank's at the end
};

struct Layout {
  std::int64_t micro_batch = batch;
  std::size_t bucket_bytes = 4096;
  DType compute = DType::f32;
  Style style = Style::gpt2;
  MeshSizes mesh = {};
  ShardingOptions sharding = {};
};

/// A logical tensor from all ranks' slices of it.
std::vector<float> whole(Communicator& ranks, const Slice& slice, const Tensor& local) {
  const std::int64_t count = slice.global_shape.numel();
  std::vector<double> both(static_cast<std::size_t>(2 * count));  // sums of values, and how many ranks have them
  const float* values = local.view().as<float>();
  slice.for_each_run([&](std::int64_t at, std::int64_t global, std::int64_t run) {
    for (std::int64_t i = 0; i < run; ++i) {
      both[static_cast<std::size_t>(global + i)] = values[at + i];
      both[static_cast<std::size_t>(count + global + i)] = 1;
    }
  });
  ranks.all_reduce(MutView(both.data(), {2 * count}, DType::f64)).wait();
  std::vector<float> values_of_all;
  for (std::size_t i = 0; i < static_cast<std::size_t>(count); ++i)
    values_of_all.push_back(static_cast<float>(both[i] / both[static_cast<std::size_t>(count) + i]));
  return values_of_all;
}

Training train(Communicator& ranks, const Layout& layout) {
  RunOptions run;
  run.threads = 1;
  Engine engine(run);
  CommLog& log = comm_log();
  Mesh mesh(ranks, log, layout.mesh);
  const auto built = build_model(config(layout.style), mesh, layout.sharding);
  built->store.allocate_values(engine.exec());
  built->store.allocate_grads(engine.exec());
  built->store.initialize(engine.exec(), 5);
  Optimizer optimizer(AdamWSpec{}, built->store, engine.exec());
  SamplerOptions order;
  order.seq = seq;
  order.seed = 5;
  const Sampler sampler(text(), order);
  StepOptions options;
  options.batch = batch;
  options.micro_batch = layout.micro_batch;
  options.seq = seq;
  options.seed = 5;
  options.clip = 1;
  options.compute = layout.compute;
  options.sharding = layout.sharding;
  options.buckets.bytes = layout.bucket_bytes;
  TrainingStep step({engine, mesh, log}, *built, optimizer, sampler, options);
  Training result;
  for (const Parameter* parameter : built->store.all())
    result.initial.push_back(whole(ranks, parameter->slice(), parameter->value()));
  for (int i = 1; i <= steps; ++i) {
    const StepResult done = step.run(i, (i - 1) * batch, learning_rate(layout.style), false);
    result.losses.push_back(done.loss);
    result.norms.push_back(done.grad_norm);
    if (i > 1) continue;
    for (const Parameter* parameter : built->store.all())
      result.gradients.push_back(whole(ranks, parameter->slice(), parameter->grad()));
  }
  const float* values = built->store.flat_values().view().as<float>();
  result.values.assign(values, values + built->store.flat_values().numel());
  return result;
}

double norm(const std::vector<float>& values) {
  double sum = 0;
  for (const float value : values) sum += static_cast<double>(value) * value;
  return std::sqrt(sum);
}

/// Worst disagreement of each kind, as a multiple of what is allowed: at most 1 means equal.
struct Difference {
  double gradient = 0, loss = 0, grad_norm = 0;
  bool equal() const { return gradient <= 1 && loss <= 1 && grad_norm <= 1; }
};

Difference compare(const Training& a, const Training& b) {
  Difference worst;
  double global = 0;
  for (const auto& gradient : a.gradients) global = std::hypot(global, norm(gradient));
  for (std::size_t i = 0; i < a.gradients.size(); ++i) {
    std::vector<float> apart = a.gradients[i];
    for (std::size_t j = 0; j < apart.size(); ++j) apart[j] -= b.gradients[i][j];
    const double scale = norm(a.gradients[i]);
    const double allowed = scale < 1e-6 * global ? 1e-6 * global : 1e-5 * scale;
    worst.gradient = std::max(worst.gradient, norm(apart) / allowed);
  }
  for (int i = 0; i < steps; ++i) {
    const auto at = static_cast<std::size_t>(i);
    worst.loss = std::max(worst.loss, std::abs(a.losses[at] - b.losses[at]) / (1e-5 * a.losses[at]));
    worst.grad_norm = std::max(worst.grad_norm, std::abs(a.norms[at] - b.norms[at]) / (5e-5 * a.norms[at]));
  }
  return worst;
}

class LayoutsTest : public ::testing::Test {
 protected:
  static const Training& alone(Style style) {
    static std::map<Style, Training> runs;
    if (!runs.contains(style)) {
      const std::unique_ptr<Communicator> self = make_self_communicator(comm_log());
      Layout layout;
      layout.style = style;
      runs.emplace(style, train(*self, layout));
    }
    return runs.at(style);
  }

  static void expect_equal(const Layout& layout, const std::string& what = {}) {
    const Training run = train(world(), layout);
    const Difference difference = compare(alone(layout.style), run);
    EXPECT_LE(difference.gradient, 1) << what;
    EXPECT_LE(difference.loss, 1) << what;
    EXPECT_LE(difference.grad_norm, 1) << what;
    EXPECT_EQ(run.initial, alone(layout.style).initial) << what;
  }
};

/// Every mesh of this many ranks that a model's heads fit, with everything else changing from one to the next.
std::vector<Layout> sweep(int ranks) {
  std::vector<Layout> layouts;
  for (const Style style : {Style::gpt2, Style::llama})
    for (int tp = 1; tp <= ranks; ++tp)
      for (int sp = 1; sp <= ranks / tp; ++sp) {
        const LmConfig lm = config(style);
        if (ranks % (tp * sp) != 0 || !heads_fit(lm.heads, lm.kv_heads, tp)) continue;
        bool exchanges = sp > 1;
        for (int rank = 0; rank < tp; ++rank) {
          const HeadShare own = share_heads(lm.heads, lm.kv_heads, tp, rank);
          exchanges = exchanges && heads_fit(own.heads.size(), own.kv_heads.size(), sp);
        }
        for (const bool exchange : {false, true}) {
          if (exchange && !exchanges) continue;
          Layout layout;
          layout.style = style;
          layout.mesh = {1, ranks / (tp * sp), sp, tp};
          layout.sharding.sp_attention = exchange ? SequenceAttention::exchange : SequenceAttention::ring;
          layout.sharding.tp_sequence = layouts.size() % 3 != 1;
          layout.sharding.chunk_rows = layouts.size() % 2 ? 32 : 512;
          layout.micro_batch = layouts.size() % 2 ? 5 : batch;
          layouts.push_back(layout);
        }
      }
  return layouts;
}

std::string name_of(const Layout& layout) {
  return fmt::format("{} dp {} sp {} tp {} {} {} rows {} micro-batch {}",
                     layout.style == Style::gpt2 ? "gpt2" : "llama", layout.mesh.dp, layout.mesh.sp, layout.mesh.tp,
                     layout.sharding.sp_attention == SequenceAttention::ring ? "ring" : "exchange",
                     layout.sharding.tp_sequence ? "shared" : "whole", layout.sharding.chunk_rows, layout.micro_batch);
}

TEST_F(LayoutsTest, EveryMeshEqualsOneRank) {
  for (const Layout& layout : sweep(world().size())) expect_equal(layout, name_of(layout));
}

TEST_F(LayoutsTest, TheReferenceRunLearns) {
  for (const Style style : {Style::gpt2, Style::llama})
    EXPECT_GT(alone(style).losses.front() - alone(style).losses.back(), 1.0);
}

TEST_F(LayoutsTest, DataParallelRanksEqualOneRank) { expect_equal({}); }

TEST_F(LayoutsTest, AccumulationEqualsTheWholeBatchEvenInUnequalPieces) {
  for (const std::int64_t micro_batch : {1, 5}) expect_equal({micro_batch, 4096, DType::f32});
}

TEST_F(LayoutsTest, BucketSizeDoesNotMatter) {
  expect_equal({4, 1, DType::f32});
  expect_equal({4, std::size_t{1} << 30, DType::f32});
}

TEST_F(LayoutsTest, TheSameLayoutTwiceGivesTheSameBits) {
  for (const DType dtype : {DType::f32, DType::bf16}) {
    const Training one = train(world(), {4, 4096, dtype}), two = train(world(), {4, 4096, dtype});
    EXPECT_EQ(std::memcmp(one.values.data(), two.values.data(), one.values.size() * sizeof(float)), 0);
    EXPECT_EQ(one.losses, two.losses);
  }
}

TEST_F(LayoutsTest, AllRanksHoldTheSameBits) {
  Training run = train(world(), {});
  std::vector<float> sums = run.values;
  Communicator& all = world();
  all.broadcast(MutView(sums.data(), {static_cast<std::int64_t>(sums.size())}, DType::f32), 0).wait();
  EXPECT_EQ(std::memcmp(sums.data(), run.values.data(), sums.size() * sizeof(float)), 0);
}

TEST_F(LayoutsTest, ASkippedOrScaledReductionIsSeen) {
  if (world().size() == 1) return;  // nothing is reduced
  for (const Break broken : {Break::skip_gradients, Break::scale_gradients, Break::skip_denominator, Break::skip_loss}) {
    const auto ranks = make_breakable(world(), comm_log(), broken);
    EXPECT_FALSE(compare(alone(Style::gpt2), train(*ranks, {})).equal()) << "break " << static_cast<int>(broken);
  }
  const auto whole = make_breakable(world(), comm_log(), Break::nothing);
  EXPECT_TRUE(compare(alone(Style::gpt2), train(*whole, {})).equal());
}

}  // namespace
}  // namespace weft::test
