// Trains by one kind of parallelism and says how many bytes all ranks' ledgers have: monitored_program KIND STEPS.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>

#include "tests/distributed/mpi_test.hpp"
#include "tests/distributed/train/training.hpp"

namespace weft::test {
namespace {

Layout layout_of(const std::string& kind, int ranks) {
  Layout exchange{.style = Style::gpt2, .mesh = {1, 1, ranks, 1}};
  exchange.sharding.sp_attention = SequenceAttention::exchange;
  Layout shared{.style = Style::llama, .mesh = {1, 1, 1, ranks}}, whole = shared;
  whole.sharding.tp_sequence = false;
  // Buckets as large as users have them: all-reduces of up to 16 KiB send more than the ledger's convention counts.
  const Layout dp{.bucket_bytes = std::size_t{4} << 20, .mesh = {1, ranks, 1, 1}};
  Layout bf16 = dp;
  bf16.wire = Wire::bf16;
  const auto zero = [&](ZeroStage stage) {
    return Layout{.micro_batch = batch / ranks / 2, .mesh = {1, ranks, 1, 1}, .zero = stage};
  };
  const std::map<std::string, Layout> layouts = {{"dp", dp},
                                                 {"dp-bf16", bf16},
                                                 {"tp", whole},
                                                 {"tp-sequence", shared},
                                                 {"ring", {.style = Style::llama, .mesh = {1, 1, ranks, 1}}},
                                                 {"exchange", exchange},
                                                 {"zero1", zero(ZeroStage::optimizer)},
                                                 {"zero2", zero(ZeroStage::gradients)},
                                                 {"zero3", zero(ZeroStage::parameters)}};
  return layouts.at(kind);
}

}  // namespace

// What the training's communicators write to.
CommLog& comm_log() {
  static CommLog log;
  return log;
}

}  // namespace weft::test

int main(int argc, char** argv) {
  using namespace weft;
  const std::string kind = argv[1];
  const int steps = std::atoi(argv[2]);
  CommLog& log = test::comm_log();
  MpiRuntime mpi(argc, argv, log, {});
  Communicator& ranks = mpi.world();
  double bytes = 0;
  {
    test::TrainingRun run(ranks, test::layout_of(kind, ranks.size()));
    for (int step = 1; step <= steps; ++step) run.step(step);
    run.settle();
    ranks.barrier().wait();
    bytes = static_cast<double>(log.wire_bytes());
  }
  ranks.all_reduce(MutView(&bytes, {1}, DType::f64)).wait();
  if (ranks.rank() == 0) std::printf("%.0f\n", bytes);
  return 0;
}
