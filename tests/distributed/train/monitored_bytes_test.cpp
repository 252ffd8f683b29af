// What Open MPI's own counters (pml_monitoring) say that each kind of parallelism sends agrees with the ledger, which
// bytes_test holds to the formulas.
#include <gtest/gtest.h>

#include <cstdio>
#include <fstream>
#include <sstream>

#include "core/base/error.hpp"
#include "tests/unit/io/temp_folder.hpp"

namespace weft::test {
namespace {

struct Bytes {
  double ledger = 0, monitored = 0;
};

constexpr int ranks = 4;

/// Of all ranks, for so many steps and what comes before and after them.
Bytes run(const std::string& kind, int steps) {
  const TempFolder folder;
  const std::string prefix = (folder.path() / "sent").string();
  const std::string command = fmt::format(
      "OMPI_MCA_pml=ob1,monitoring OMPI_MCA_pml_monitoring_enable=1 OMPI_MCA_pml_monitoring_enable_output=3 "
      "OMPI_MCA_pml_monitoring_filename={} timeout --kill-after=5 120 {} {} {} {} {}",
      prefix, WEFT_MPI_COMMAND, ranks, WEFT_MONITORED_PROGRAM, kind, steps);
  Bytes bytes;
  FILE* program = ::popen(command.c_str(), "r");
  EXPECT_EQ(std::fscanf(program, "%lf", &bytes.ledger), 1) << command;
  EXPECT_EQ(::pclose(program), 0) << command;
  for (int rank = 0; rank < ranks; ++rank) {
    std::ifstream file(fmt::format("{}.{}.prof", prefix, rank));
    EXPECT_TRUE(file) << "Open MPI's component pml_monitoring has counted nothing";
    for (std::string line; std::getline(file, line);) {
      // "E  0  1  100012 bytes  4 msgs sent …": everything from one rank to another.
      std::istringstream words(line);
      std::string what;
      int from = 0, to = 0;
      double sent = 0;
      if (words >> what >> from >> to >> sent && what == "E") bytes.monitored += sent;
    }
  }
  return bytes;
}

/// What ompi_info says of Open MPI's components; empty: it cannot be run.
std::string components() {
  std::string text;
  FILE* program = ::popen(WEFT_OMPI_INFO " --parsable --all 2>/dev/null", "r");
  char piece[4096];
  for (std::size_t count = 0; (count = std::fread(piece, 1, sizeof piece, program)) > 0;) text.append(piece, count);
  return ::pclose(program) == 0 ? text : std::string();
}

class MonitoredBytes : public testing::TestWithParam<std::string> {};

TEST_P(MonitoredBytes, AreWhatTheLedgerSays) {
  // Only where Open MPI itself says so: else a counter that is not there is a failure.
  static const std::string known = components();
  if (known.find("mca:pml:ob1:") != std::string::npos && known.find("mca:pml:monitoring:") == std::string::npos)
    GTEST_SKIP() << "this Open MPI was built without the component pml_monitoring (ompi_info does not list it)";
  // The difference is what steps send, without the start, the end and the making of groups.
  const Bytes few = run(GetParam(), 2), many = run(GetParam(), 8);
  const double ledger = many.ledger - few.ledger, monitored = many.monitored - few.monitored;
  EXPECT_GT(ledger, 0);
  EXPECT_NEAR(monitored / ledger, 1, 0.05) << "MPI sent " << monitored << " bytes, the ledger has " << ledger;
}

INSTANTIATE_TEST_SUITE_P(Kinds, MonitoredBytes,
                         testing::Values("dp", "dp-bf16", "tp", "tp-sequence", "ring", "exchange", "zero1", "zero2",
                                         "zero3"),
                         [](const auto& row) {
                           std::string name = row.param;
                           std::erase(name, '-');
                           return name;
                         });

}  // namespace
}  // namespace weft::test
