// The lens: a recurrence's levels grow with the length and attention's do not, by the ledger; what is written carries all rows.
#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "launcher/lens/report.hpp"
#include "tests/unit/io/temp_folder.hpp"

namespace weft {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

class LensTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    RunOptions run;
    run.device = DeviceChoice::cpu;
    run.threads = 1;
    Engine engine(run);
    LensSpec spec;
    spec.models = {"attention", "lstm", "qrnn"};
    spec.lengths = {8, 16, 32, 64};
    spec.widths = {16, 32};
    spec.batches = {1, 4};
    spec.repeats = 1;
    CommLog log;
    const auto world = make_self_communicator(log, "world", 0, &engine.device());
    Mesh mesh(*world, log, {});
    std::size_t last = 0;
    LensHooks hooks;
    hooks.progress = [&](std::size_t done, std::size_t total, const std::string&) {
      EXPECT_GE(done, last);
      EXPECT_EQ(total, rows);
      last = done;
    };
    result = new LensResult(measure_lens({engine, mesh, log}, spec, hooks).value());
    EXPECT_EQ(last, rows);
    EXPECT_FALSE(measure_lens({engine, mesh, log}, spec, {.progress = {}, .stop = [] { return true; }}));
  }
  static void TearDownTestSuite() { delete std::exchange(result, nullptr); }

  static double exponent(const std::string& model, double (*value)(const LensRow&)) {
    std::vector<PlotPoint> points;
    for (const LensRow& row : result->rows)
      if (row.model == model && row.d_model == 32 && row.batch == 4) points.push_back({static_cast<double>(row.seq), value(row)});
    return fitted_exponent(points);
  }

  static constexpr std::size_t rows = 48;
  static LensResult* result;
};

LensResult* LensTest::result = nullptr;

TEST(FittedExponent, IsThatOfAPowerLaw) {
  EXPECT_NEAR(fitted_exponent({{1, 3}, {2, 12}, {8, 192}}), 2, 1e-12);
  EXPECT_NEAR(fitted_exponent({{1, 5}, {10, 5}}), 0, 1e-12);
  EXPECT_EQ(fitted_exponent({{4, 5}}), 0);
  EXPECT_EQ(fitted_exponent({{4, 5}, {4, 6}}), 0) << "one abscissa has no slope";
}

TEST_F(LensTest, LevelsGrowForRecurrencesAlone) {
  const auto span = [](const LensRow& row) { return row.span(); };
  const auto least = [](const LensRow& row) { return row.span_min(); };
  EXPECT_NEAR(exponent("attention", span), 0, 1e-9);
  EXPECT_NEAR(exponent("lstm", span), 1, 0.15);
  EXPECT_GT(exponent("lstm", least), 0.6) << "an LSTM is not affine in its state";
  EXPECT_LT(exponent("qrnn", least), 0.3) << "a scan's depth is the logarithm";
}

TEST_F(LensTest, WorkOfAttentionGrowsFasterThanThatOfARecurrence) {
  const auto work = [](const LensRow& row) { return row.work(); };
  EXPECT_GT(exponent("attention", work), exponent("lstm", work) + 0.1);
  EXPECT_NEAR(exponent("lstm", work), 1, 0.02);
}

TEST_F(LensTest, EveryRowWasMeasured) {
  ASSERT_EQ(result->rows.size(), rows);
  for (const LensRow& row : result->rows) {
    EXPECT_GT(row.forward_ms, 0);
    EXPECT_GT(row.backward_ms, 0);
    EXPECT_GT(row.activation_bytes, 0u);
    EXPECT_GT(row.backward.work, row.forward.work);
  }
}

TEST_F(LensTest, GradientReachesBackFromTheLastToken) {
  ASSERT_EQ(result->reaches.size(), 3u);
  for (const GradientReach& reach : result->reaches) {
    ASSERT_EQ(reach.norms.size(), 64u);
    EXPECT_DOUBLE_EQ(reach.norms.front().y, 1);
    EXPECT_GT(reach.norms[1].y, 0) << reach.model << " does not see the token before";
  }
  const auto& lstm = result->reaches[1].norms;
  EXPECT_LT(lstm.back().y, lstm[1].y) << "at its initial weights an LSTM forgets";
}

TEST_F(LensTest, FilesCarryAllRows) {
  const test::TempFolder folder;
  const fs::path page = write_lens(*result, folder.path() / "lens");
  std::ifstream file(page.parent_path() / "lens.json");
  const auto written = nlohmann::json::parse(file);
  ASSERT_EQ(written.size(), rows);
  for (const char* field : {"model", "seq", "d_model", "batch", "ranks", "axis", "work", "span", "span_min",
                            "parallelism", "forward_ms", "backward_ms", "activation_bytes", "comm_bytes"})
    EXPECT_TRUE(written.front().contains(field)) << field;
  for (const char* name :
       {"lens.csv", "span.svg", "span_min.svg", "work.svg", "time.svg", "batch.svg", "memory.svg", "gradient.svg"})
    EXPECT_GT(fs::file_size(page.parent_path() / name), 100u) << name;
  EXPECT_THAT(format_lens(*result), HasSubstr("lstm"));
}

}  // namespace
}  // namespace weft
