// main of every program under mpirun: --ranks=N must be the size of the world; failures of all ranks are printed by
// rank 0 and fail every rank. --direct-ranks=N and --lanes=N set MpiTuning::direct_ranks and local_lanes.
#include <cstdio>
#include <cstdlib>
#include <string>
#include <string_view>

#include "parallel/comm/text_exchange.hpp"
#include "tests/distributed/mpi_test.hpp"

namespace weft::test {
namespace {

MpiRuntime* runtime = nullptr;
CommLog* log = nullptr;

/// Notes the failures of this rank.
class Failures : public testing::EmptyTestEventListener {
 public:
  void OnTestStart(const testing::TestInfo& info) override {
    name_ = fmt::format("{}.{}", info.test_suite_name(), info.name());
    log->set_phase(info.name());
  }
  void OnTestPartResult(const testing::TestPartResult& result) override {
    if (!result.failed()) return;
    text += fmt::format("rank {}: {}: {}:{}\n{}\n", runtime->rank(), name_,
                        result.file_name() ? result.file_name() : "", result.line_number(), result.message());
  }
  std::string text;

 private:
  std::string name_;  ///< asking GoogleTest for it here would lock its mutex again
};

int run(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  const auto number = [&](std::string_view option, int otherwise) {
    for (int i = 1; i < argc; ++i)
      if (std::string_view(argv[i]).starts_with(option)) return std::atoi(argv[i] + option.size());
    return otherwise;
  };
  const int expected = number("--ranks=", 0);

  CommLog comm_log;
  MpiOptions options;
  options.timeout_seconds = 60;
  options.tuning.direct_ranks = number("--direct-ranks=", options.tuning.direct_ranks);
  options.tuning.local_lanes = number("--lanes=", options.tuning.local_lanes);
  options.on_failure = [](const std::string&) { runtime->abort_job(1); };
  MpiRuntime mpi(argc, argv, comm_log, options);
  runtime = &mpi;
  log = &comm_log;
  if (mpi.size() != expected) {
    std::fprintf(stderr, "this test runs on %d ranks and found %d\n", expected, mpi.size());
    return 1;
  }
  auto& listeners = testing::UnitTest::GetInstance()->listeners();
  auto* failures = new Failures;
  listeners.Append(failures);
  if (mpi.rank() != 0) delete listeners.Release(listeners.default_result_printer());
  const bool failed = RUN_ALL_TESTS() != 0;
  if (testing::UnitTest::GetInstance()->test_to_run_count() == 0) {
    std::fprintf(stderr, "no test matches\n");
    return 1;
  }
  std::string all;
  try {
    for (const std::string& text : all_gather_text(world(), failures->text + (failed ? "\n" : ""))) all += text;
  } catch (const Error& error) {
    std::fprintf(stderr, "%s%s\n", failures->text.c_str(), error.what());
    mpi.abort_job(1);
    return 1;
  }
  if (mpi.rank() == 0 && !all.empty()) std::fprintf(stderr, "failures of all ranks:\n%s", all.c_str());
  return all.empty() ? 0 : 1;
}

}  // namespace

MpiRuntime& mpi() { return *runtime; }
CommLog& comm_log() { return *log; }

}  // namespace weft::test

int main(int argc, char** argv) { return weft::test::run(argc, argv); }
