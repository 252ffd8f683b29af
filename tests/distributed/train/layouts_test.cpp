// Data-parallel ranks, and gradient accumulation in their place, train what one rank trains (docs/numerics.md).
#include <cmath>
#include <cstring>

#include "launcher/training_step.hpp"
#include "tests/distributed/mpi_test.hpp"
#include "tests/distributed/train/breakable_transport.hpp"

namespace weft::test {
namespace {

constexpr std::int64_t batch = 12, seq = 24;
constexpr int steps = 30;

LmConfig config() {
  LmConfig lm;
  lm.layers = 2;
  lm.d_model = 32;
  lm.heads = 4;
  lm.kv_heads = 2;
  lm.d_ff = 96;
  lm.max_seq = seq;
  lm.dropout = 0.1f;
  return lm;
}

TokenSources text() {
  std::string all;
  for (int i = 0; all.size() < 4000; ++i) all += fmt::format("line {} of {} says {}; ", i, i * i % 17, i % 3 ? "warp" : "weft");
  return {memory_tokens("text", all)};
}

struct Training {
  std::vector<double> losses, norms;
  std::vector<std::vector<float>> gradients;  ///< of step 1, by parameter
  std::vector<float> values;                  ///< at the end
};

struct Layout {
  std::int64_t micro_batch = batch;
  std::size_t bucket_bytes = 4096;
  DType compute = DType::f32;
};

Training train(Communicator& ranks, const Layout& layout) {
  RunOptions run;
  run.threads = 1;
  Engine engine(run);
  CommLog& log = comm_log();
  Mesh mesh(ranks, log, {});
  const auto built = build_model(config(), mesh);
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
  options.buckets.bytes = layout.bucket_bytes;
  TrainingStep step({engine, mesh, log}, *built, optimizer, sampler, options);
  Training result;
  for (int i = 1; i <= steps; ++i) {
    const StepResult done = step.run(i, (i - 1) * batch, 3e-3, false);
    result.losses.push_back(done.loss);
    result.norms.push_back(done.grad_norm);
    if (i > 1) continue;
    for (const Parameter* parameter : built->store.all()) {
      const float* grad = parameter->grad().view().as<float>();
      result.gradients.emplace_back(grad, grad + parameter->grad().numel());
    }
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
  static void SetUpTestSuite() {
    const std::unique_ptr<Communicator> self = make_self_communicator(comm_log());
    alone = new Training(train(*self, {}));
  }
  static void TearDownTestSuite() { delete std::exchange(alone, nullptr); }
  static Training* alone;

  static void expect_equal(const Training& other) {
    const Difference difference = compare(*alone, other);
    EXPECT_LE(difference.gradient, 1);
    EXPECT_LE(difference.loss, 1);
    EXPECT_LE(difference.grad_norm, 1);
  }
};

Training* LayoutsTest::alone = nullptr;

TEST_F(LayoutsTest, TheReferenceRunLearns) {
  EXPECT_GT(alone->losses.front() - alone->losses.back(), 1.0);
}

TEST_F(LayoutsTest, DataParallelRanksEqualOneRank) { expect_equal(train(world(), {})); }

TEST_F(LayoutsTest, AccumulationEqualsTheWholeBatchEvenInUnequalPieces) {
  for (const std::int64_t micro_batch : {1, 5}) expect_equal(train(world(), {micro_batch, 4096, DType::f32}));
}

TEST_F(LayoutsTest, BucketSizeDoesNotMatter) {
  expect_equal(train(world(), {4, 1, DType::f32}));
  expect_equal(train(world(), {4, std::size_t{1} << 30, DType::f32}));
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
    EXPECT_FALSE(compare(*alone, train(*ranks, {})).equal()) << "break " << static_cast<int>(broken);
  }
  const auto whole = make_breakable(world(), comm_log(), Break::nothing);
  EXPECT_TRUE(compare(*alone, train(*whole, {})).equal());
}

}  // namespace
}  // namespace weft::test
