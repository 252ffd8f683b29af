#include "parallel/comm/flight_recorder.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <csignal>
#include <filesystem>
#include <fstream>

namespace weft::test {
namespace {

using testing::HasSubstr;

class FlightRecordTest : public testing::Test {
 protected:
  void SetUp() override {
    const auto* info = testing::UnitTest::GetInstance()->current_test_info();
    path = std::filesystem::temp_directory_path() / fmt::format("weft-{}-{}", info->name(), ::getpid());
  }
  void TearDown() override { std::filesystem::remove(path); }
  std::filesystem::path path;
};

TEST_F(FlightRecordTest, IsReadableAfterItsWriterWasKilled) {
  const pid_t child = ::fork();
  if (child == 0) {
    FlightRecorder recorder(path, 3, "node7");
    recorder.set_step(41);
    recorder.set_phase("backward");
    recorder.end(recorder.begin({.kind = CollectiveKind::all_gather, .sequence = 8}, "tp", 100));
    recorder.begin({.kind = CollectiveKind::all_reduce, .sequence = 9}, "dp", 4096);
    recorder.beat();
    ::kill(::getpid(), SIGKILL);
  }
  int status = 0;
  ASSERT_EQ(::waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFSIGNALED(status));
  const FlightRecord record = read_flight_record(path);
  EXPECT_EQ(record.rank, 3);
  EXPECT_EQ(record.host, "node7");
  EXPECT_EQ(record.pid, child);
  EXPECT_EQ(record.step, 41);
  EXPECT_EQ(record.phase, "backward");
  EXPECT_GT(record.heartbeat_ns, 0);
  ASSERT_EQ(record.entries.size(), 2u);
  EXPECT_EQ(record.entries[0].kind, CollectiveKind::all_gather);
  EXPECT_GE(record.entries[0].ended_ns, record.entries[0].begun_ns);
  EXPECT_EQ(record.entries[1].sequence, 9u);
  EXPECT_EQ(record.entries[1].group, "dp");
  EXPECT_EQ(record.entries[1].bytes, 4096u);
  EXPECT_EQ(record.entries[1].step, 41);
  EXPECT_EQ(record.entries[1].ended_ns, 0);
  const std::string text = format_flight_record(record);
  EXPECT_THAT(text, HasSubstr("rank 3 on node7, pid"));
  EXPECT_THAT(text, HasSubstr("all_reduce #9 of dp"));
  EXPECT_THAT(text, HasSubstr("in flight"));
}

TEST_F(FlightRecordTest, KeepsTheLatestCollectives) {
  FlightRecorder recorder(path, 0, "here");
  const auto stuck = recorder.begin({.sequence = 0}, "world", 1);
  const std::uint64_t last = FlightRecorder::capacity + 10;
  for (std::uint64_t sequence = 1; sequence <= last; ++sequence)
    recorder.end(recorder.begin({.sequence = sequence}, "world", 1));
  // Its entry belongs to another collective by now.
  recorder.end(stuck);
  const FlightRecord record = read_flight_record(path);
  ASSERT_EQ(record.entries.size(), FlightRecorder::capacity);
  EXPECT_EQ(record.entries.back().sequence, last);
  EXPECT_EQ(record.entries.front().sequence, last - FlightRecorder::capacity + 1);
}

TEST_F(FlightRecordTest, ReportsCollectivesInFlightHoweverOld) {
  FlightRecorder recorder(path, 0, "here");
  recorder.begin({.kind = CollectiveKind::broadcast, .sequence = 77}, "pp", 1);
  for (std::uint64_t sequence = 0; sequence < 50; ++sequence)
    recorder.end(recorder.begin({.sequence = sequence}, "dp", 1));
  const std::string text = format_flight_record(read_flight_record(path), 2);
  EXPECT_THAT(text, HasSubstr("broadcast #77 of pp"));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 1 + 1 + 2);
}

TEST_F(FlightRecordTest, RefusesOtherFiles) {
  EXPECT_THROW(read_flight_record(path), UserError);
  std::ofstream(path) << std::string(1 << 20, 'x');
  EXPECT_THROW(read_flight_record(path), UserError);
  EXPECT_THROW(FlightRecorder("/nonexistent/flight", 0, "here"), UserError);
}

}  // namespace
}  // namespace weft::test
