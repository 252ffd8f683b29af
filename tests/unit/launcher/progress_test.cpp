#include "launcher/progress.hpp"

#include <gmock/gmock.h>

#include <cstdlib>

namespace weft {
namespace {

using testing::HasSubstr;
using testing::Not;

StepMetrics metrics(std::int64_t step) {
  StepMetrics result;
  result.step = step;
  result.loss = 1.2345;
  result.tokens_per_s = 12345;
  result.step_ms = 100;
  result.mfu = 0.5;
  return result;
}

// Characters on the screen: bytes that do not continue a UTF-8 character.
int columns_of(const std::string& text) {
  return static_cast<int>(
      std::ranges::count_if(text, [](char c) { return (static_cast<unsigned char>(c) & 0xC0) != 0x80; }));
}

TEST(Progress, BarNeverPassesTheTerminalsEdge) {
  for (const bool utf8 : {false, true})
    for (int columns = 10; columns < 240; ++columns)
      for (const std::int64_t step : {1, 77, 100000})
        EXPECT_LT(columns_of(progress_bar(metrics(step), 1.5, 3700, 100000, columns, utf8)), columns) << columns;
}

TEST(Progress, WideBarShowsEverything) {
  const std::string bar = progress_bar(metrics(50), 1.5, 75, 100, 120, false);
  for (const char* part : {"50/100", "loss 1.234", "valid 1.500", "12.3k tok/s", "MFU 50%", "1:15 left", "====="})
    EXPECT_THAT(bar, HasSubstr(part));
}

TEST(Progress, NarrowBarKeepsTheLoss) {
  const std::string bar = progress_bar(metrics(50), 1.5, 75, 100, 30, false);
  EXPECT_THAT(bar, HasSubstr("loss 1.23"));
  EXPECT_THAT(bar, Not(HasSubstr("MFU")));
}

class Captured {
 public:
  std::FILE* stream() { return stream_; }
  std::string text() {
    std::fflush(stream_);
    return std::string(data_, size_);
  }
  ~Captured() {
    std::fclose(stream_);
    std::free(data_);
  }

 private:
  char* data_ = nullptr;
  std::size_t size_ = 0;
  std::FILE* stream_ = ::open_memstream(&data_, &size_);
};

TEST(Progress, LogsGetPlainLinesFirstAndLast) {
  Captured captured;
  Progress progress({.stream = captured.stream(), .steps = 50, .line_seconds = 1000});
  for (std::int64_t step = 1; step <= 50; ++step) progress.step(metrics(step));
  progress.valid({50, 1.5, 2.16, 10, 1});
  EXPECT_EQ(std::ranges::count(captured.text(), '\n'), 3);
  EXPECT_THAT(captured.text(), HasSubstr("step 1/50  loss 1.2345"));
  EXPECT_THAT(captured.text(), HasSubstr("step 50/50"));
  EXPECT_THAT(captured.text(), HasSubstr("validation loss 1.5000, 2.1600 bits a byte"));
  EXPECT_THAT(captured.text(), Not(HasSubstr("\r")));
}

TEST(Progress, TerminalsGetABarAndNotesAboveIt) {
  Captured captured;
  {
    Progress progress({.stream = captured.stream(), .columns = 80, .steps = 2});
    progress.step(metrics(1));
    progress.note("saved");
    progress.step(metrics(2));
  }
  EXPECT_THAT(captured.text(), HasSubstr("\r\033[Ksaved\n"));
  EXPECT_TRUE(captured.text().ends_with("\n"));
}

TEST(Progress, QuietSaysNothing) {
  Captured captured;
  Progress progress({.stream = captured.stream(), .quiet = true, .steps = 2});
  progress.step(metrics(2));
  progress.note("x");
  EXPECT_EQ(captured.text(), "");
}

TEST(Progress, DurationsAndCounts) {
  EXPECT_EQ(format_duration(75.4), "1:15");
  EXPECT_EQ(format_duration(3700), "1:01:40");
  EXPECT_EQ(format_count(999), "999");
  EXPECT_EQ(format_count(999.9), "1.00k");
  EXPECT_EQ(format_count(12345), "12.3k");
  EXPECT_EQ(format_count(124e6), "124M");
}

}  // namespace
}  // namespace weft
