#include "launcher/run_folder.hpp"

#include <gmock/gmock.h>

#include <cmath>
#include <fstream>
#include <sstream>

#include "core/base/error.hpp"
#include "launcher/report.hpp"
#include "launcher/run_files.hpp"

namespace weft {
namespace {

using testing::HasSubstr;
using testing::SizeIs;

class RunFolderTest : public testing::Test {
 protected:
  RunFolderTest() : root_(std::filesystem::path(testing::TempDir()) / ("run-" + std::to_string(::getpid()))) {
    std::filesystem::remove_all(root_);
  }
  ~RunFolderTest() override { std::filesystem::remove_all(root_); }

  static StepMetrics row(std::int64_t step) {
    StepMetrics metrics;
    metrics.step = step;
    metrics.loss = 2.0 / static_cast<double>(step);
    metrics.lr = 1e-3;
    metrics.grad_norm = 1;
    metrics.tokens = step * 100;
    metrics.tokens_per_s = 1000;
    metrics.step_ms = 100;
    metrics.seconds = static_cast<double>(step);
    return metrics;
  }
  std::string read(const char* name) const {
    std::ifstream file(root_ / name);
    std::stringstream text;
    text << file.rdbuf();
    return text.str();
  }

  std::filesystem::path root_;
};

TEST_F(RunFolderTest, MetricsReadBackAsWritten) {
  RunFolder folder(root_);
  folder.open_metrics(0);
  StepMetrics bad = row(2);
  bad.loss = NAN;
  bad.skipped = true;
  folder.append(row(1));
  folder.append(bad);
  folder.append(ValidMetrics{2, 1.5, 2.25, 77, 2.0});
  folder.flush();
  const RunMetrics metrics = read_metrics(folder.metrics());
  ASSERT_THAT(metrics.steps, SizeIs(2));
  ASSERT_THAT(metrics.valid, SizeIs(1));
  EXPECT_EQ(metrics.steps[0].loss, 2.0);
  EXPECT_EQ(metrics.steps[0].tokens, 100);
  EXPECT_TRUE(std::isnan(metrics.steps[1].loss));
  EXPECT_TRUE(metrics.steps[1].skipped);
  EXPECT_EQ(metrics.valid[0].valid_bpb, 2.25);
  EXPECT_EQ(metrics.valid[0].targets, 77);
}

TEST_F(RunFolderTest, ResumeDropsRowsAfterTheCheckpointAndATornOne) {
  {
    RunFolder folder(root_);
    folder.open_metrics(0);
    for (std::int64_t step = 1; step <= 5; ++step) folder.append(row(step));
  }
  std::ofstream(root_ / "metrics.jsonl", std::ios::app) << "{\"step\": 6, \"lo";
  RunFolder folder(root_);
  EXPECT_EQ(folder.open_metrics(3), 3.0);
  folder.append(row(4));
  const RunMetrics metrics = read_metrics(folder.metrics());
  ASSERT_THAT(metrics.steps, SizeIs(4));
  EXPECT_EQ(metrics.steps.back().step, 4);
}

TEST_F(RunFolderTest, GoingBackKeepsLaterRowsUntilItHasSaved) {
  const auto start_at = [&](std::int64_t step, std::int64_t first, std::int64_t last) {
    RunFolder folder(root_);
    folder.open_metrics(step);
    for (std::int64_t next = first; next <= last; ++next) folder.append(row(next));
    return folder;
  };
  start_at(0, 1, 9);
  start_at(3, 4, 5);  // crashes before its first save
  EXPECT_THAT(read_metrics(root_ / "metrics.jsonl").steps, SizeIs(5));
  start_at(9, 10, 10);
  EXPECT_THAT(read_metrics(root_ / "metrics.jsonl").steps, SizeIs(10)) << "rows of step 6 to 9 are lost";

  start_at(3, 4, 5).drop_later_metrics();  // saves
  start_at(5, 6, 6);
  EXPECT_THAT(read_metrics(root_ / "metrics.jsonl").steps, SizeIs(6));
  EXPECT_FALSE(std::filesystem::exists(root_ / "metrics.later.jsonl")) << "an ordinary resume sets nothing aside";
}

TEST_F(RunFolderTest, StartingAnewForgetsOldMetrics) {
  {
    RunFolder folder(root_);
    folder.open_metrics(0);
    folder.append(row(1));
  }
  RunFolder folder(root_);
  EXPECT_EQ(folder.open_metrics(0), 0.0);
  EXPECT_THAT(read_metrics(folder.metrics()).steps, SizeIs(0));
}

TEST_F(RunFolderTest, AFileInThePlaceOfTheFolderIsTheUsersMistake) {
  std::ofstream(root_) << "x";
  try {
    RunFolder folder(root_);
    FAIL();
  } catch (const UserError& error) {
    EXPECT_THAT(error.what(), HasSubstr("--out"));
    EXPECT_THAT(error.what(), HasSubstr(root_.string()));
  }
}

TEST_F(RunFolderTest, ReportShowsTheRunAndItsSample) {
  RunFolder folder(root_);
  folder.open_metrics(0);
  for (std::int64_t step = 1; step <= 100; ++step) folder.append(row(step));
  folder.append(ValidMetrics{100, 1.25, {}, 77, 2.0});
  RunSummary summary;
  summary.status = "done";
  summary.device = "2 ranks on a <processor>";
  summary.parameters = 3300000;
  folder.write_summary(summary);
  folder.write_sample("template <typename T>");
  EXPECT_EQ(write_report(root_), root_ / "report.html");
  const std::string html = read("report.html");
  for (const char* part : {"3.30M", "2 ranks on a &lt;processor&gt;", "template &lt;typename T&gt;", "1.2500 nats",
                           "Loss over steps", "Gradient norm", "</html>"})
    EXPECT_THAT(html, HasSubstr(part));
  EXPECT_EQ(html.find("http"), html.find("http://www.w3.org/2000/svg")) << "the report loads nothing";
}

TEST_F(RunFolderTest, ReportOfAFolderThatIsNoRunIsTheUsersMistake) { EXPECT_THROW(write_report(root_), UserError); }

TEST_F(RunFolderTest, ReportOfARunThatNeverStepped) {
  RunFolder folder(root_);
  folder.open_metrics(0);
  write_report(root_);
  EXPECT_THAT(read("report.html"), HasSubstr("</html>"));
}

}  // namespace
}  // namespace weft
