// What the prediction says a layout takes is what the allocator counts.
#include "tests/distributed/mpi_test.hpp"
#include "tests/distributed/train/training.hpp"

namespace weft::test {
namespace {

constexpr std::array categories = {MemoryUse::parameter, MemoryUse::gradient, MemoryUse::optimizer,
                                   MemoryUse::activation};

std::size_t peak(const MemoryStats& stats, MemoryUse use) { return stats.peak[static_cast<std::size_t>(use)]; }

/// `validated`: sequences that a rank validates at a time after the second step; 0: none.
MemoryStats measured(const Layout& layout, std::int64_t validated) {
  TrainingRun run(world(), layout);
  for (int step = 1; step <= 3; ++step) {
    run.step(step);
    if (step == 2 && validated > 0) run.validate(validated);
  }
  run.settle();
  return run.exec().memory().stats();
}

void expect_predicted(const Layout& layout, std::int64_t validated = 0) {
  MemoryPlan plan = TrainingRun(world(), layout).plan();
  plan.validated = validated;
  const MemoryStats found = measured(layout, validated), predicted = predict_memory(plan);
  for (const MemoryUse use : categories) {
    // oneDNN fills its copies of weights up to blocks, and a recurrent weight's goes in tiles, which is much of weights so small.
    const bool blocks = layout.compute == DType::bf16 && plan.facts.fast_bf16, tiles = layout.mixer == "gru";
    const bool filled = use == MemoryUse::parameter && (blocks || tiles);
    const auto right = static_cast<double>(peak(found, use));
    EXPECT_NEAR(static_cast<double>(peak(predicted, use)), right, (filled ? 0.5 : 0.05) * right)
        << name_of(use) << " of " << name_of(layout);
  }
}

TEST(MemoryTest, OfEveryLayoutIsPredicted) {
  for (const Layout& layout : sweep(world().size()))
    for (const DType compute : {DType::f32, DType::bf16}) {
      Layout in = layout;
      in.compute = compute;
      expect_predicted(in);
    }
}

TEST(MemoryTest, OfAValidationThatTakesMoreThanAStepIsPredicted) {
  Layout layout;
  layout.mesh = {1, world().size(), 1, 1};
  for (const ZeroStage zero : {ZeroStage::none, ZeroStage::parameters}) {
    layout.zero = zero;
    expect_predicted(layout, 160);
  }
  MemoryPlan plan = TrainingRun(world(), layout).plan();
  const MemoryStats step = predict_memory(plan);
  plan.validated = 160;
  const MemoryStats both = predict_memory(plan);
  EXPECT_GT(peak(both, MemoryUse::activation), peak(step, MemoryUse::activation));
  // Beside a recorded step's memory, not in its place.
  plan.recorded = true;
  EXPECT_GE(predict_memory(plan).total_peak, both.total_peak + peak(step, MemoryUse::activation));
}

TEST(MemoryTest, OfARecurrenceOverChannelsIsPredicted) {
  for (const std::string mixer : {"srupp", "mean", "gru"})
    for (const bool shared : {true, false}) {
      Layout layout{.mesh = {1, 1, 1, world().size()}, .mixer = mixer};
      layout.sharding.tp_sequence = shared;
      expect_predicted(layout);
    }
}

TEST(MemoryTest, FallsByStageToTheFormulas) {
  const auto n = static_cast<double>(world().size());
  MemoryPlan plan = TrainingRun(world(), Layout{}).plan();
  plan.model.layers = 24;
  plan.model.tied = false;
  std::vector<MemoryStats> stages;
  for (int stage = 0; stage <= 3; ++stage) {
    plan.step.buckets.zero = static_cast<ZeroStage>(stage);
    stages.push_back(predict_memory(plan));
  }
  const auto of = [&](std::size_t stage, MemoryUse use) { return static_cast<double>(peak(stages[stage], use)); };
  // The allocator's size classes are up to an eighth apart.
  const auto near = [](double found, double expected) { EXPECT_NEAR(found, expected, expected / 8); };
  const double all = of(0, MemoryUse::parameter);
  near(of(0, MemoryUse::gradient), all);
  near(of(0, MemoryUse::optimizer), 2 * all);
  for (std::size_t stage = 1; stage <= 3; ++stage) near(of(stage, MemoryUse::optimizer), 2 * all / n);
  near(of(1, MemoryUse::gradient), all);
  near(of(2, MemoryUse::parameter), all);
  // Beside this rank's part: buckets that are filled or on their way, and two units.
  const double block = 4.0 * static_cast<double>(4 * 48 * 48 + 2 * 48 * 100 + 9 * 48 + 100);
  for (const std::size_t stage : {2, 3}) {
    EXPECT_GE(of(stage, MemoryUse::gradient), all / n);
    EXPECT_LE(of(stage, MemoryUse::gradient), 1.125 * (all / n + 2 * block));
  }
  EXPECT_GE(of(3, MemoryUse::parameter), all / n);
  EXPECT_LE(of(3, MemoryUse::parameter), 1.125 * (all / n + 2 * block));
}

TEST(MemoryTest, ALimitThatOneRankPassesIsRefusedWithWhatFits) {
  MemoryPlan plan = TrainingRun(world(), Layout{}).plan();
  plan.mesh = {1, 4, 1, 1};
  plan.rank = 0;
  plan.model.layers = 24;
  plan.step.micro_batch = 1;
  const std::size_t needed = predict_memory(plan).total_peak;
  EXPECT_EQ(memory_misfit(plan, needed), "");
  const std::string misfit = memory_misfit(plan, needed / 2);
  EXPECT_NE(misfit.find("too much; of the same ranks these fit: --zero"), std::string::npos) << misfit;
  EXPECT_NE(misfit.find("--zero 3"), std::string::npos) << misfit;
  EXPECT_NE(memory_misfit(plan, 1000).find("no --zero and --recompute fit"), std::string::npos);
}

}  // namespace
}  // namespace weft::test
