// The bytes that each kind of collective moves in a step are those of the formulas in docs/communication.md.
#include <map>

#include "parallel/layers/sequence_attention.hpp"
#include "tests/distributed/mpi_test.hpp"
#include "tests/distributed/train/training.hpp"

namespace weft::test {
namespace {

using Bytes = std::map<std::pair<std::string, CollectiveKind>, double>;

/// What this rank sent (for recv: received) in one step.
Bytes moved(Communicator& ranks, const Layout& layout) {
  TrainingRun run(ranks, layout);
  run.step(1);
  Bytes bytes;
  for (const CollectiveTotals& total : comm_log().totals())
    bytes[{total.group, total.kind}] -= static_cast<double>(total.wire_bytes);
  run.step(2);
  // Every collective that a rank waits for has been counted when it goes on; the barrier is for those of no one.
  ranks.barrier().wait();
  for (const CollectiveTotals& total : comm_log().totals())
    bytes[{total.group, total.kind}] += static_cast<double>(total.wire_bytes);
  return bytes;
}

/// Sizes of a step on this rank.
struct Sizes {
  LmConfig lm;
  double n, sequences, rows, layers, width, element = 4;

  Sizes(const Layout& layout, int ranks) : lm(config(layout.style)) {
    n = ranks;
    sequences = static_cast<double>(batch) / layout.mesh.dp;
    rows = sequences * seq;
    layers = static_cast<double>(lm.layers);
    width = static_cast<double>(lm.d_model);
  }
  /// Of an all-reduce of so many bytes; a reduce-scatter or an all-gather of them is half.
  double reduced(double bytes) const { return 2 * (n - 1) / n * bytes; }
};

/// f32 gradients of all parameters, with what fills each up to 16 elements.
double gradient_bytes(Communicator& ranks, const Layout& layout) {
  TrainingRun run(ranks, layout);
  return 4.0 * static_cast<double>(run.parameters().flat_grads().numel());
}

void expect_bytes(const Bytes& found, const std::string& group, CollectiveKind kind, double expected,
                  double tolerance = 1e-9) {
  const auto at = found.find({group, kind});
  const double bytes = at == found.end() ? 0 : at->second;
  EXPECT_NEAR(bytes, expected, tolerance * expected) << name_of(kind) << " of " << group;
}

TEST(BytesTest, DataParallelRanksReduceEachGradientOnce) {
  Communicator& ranks = world();
  const Sizes s({.mesh = {1, ranks.size(), 1, 1}}, ranks.size());
  const Layout layout{.mesh = {1, ranks.size(), 1, 1}};
  const Bytes found = moved(ranks, layout);
  expect_bytes(found, "dp+sp", CollectiveKind::all_reduce, s.reduced(gradient_bytes(ranks, layout) + 8), 1e-4);
}

TEST(BytesTest, TensorParallelRanksReduceFourTimesALayer) {
  Communicator& ranks = world();
  Layout layout{.style = Style::llama, .mesh = {1, 1, 1, ranks.size()}};
  layout.sharding.tp_sequence = false;
  const Sizes s(layout, ranks.size());
  const Bytes found = moved(ranks, layout);
  // Two forward and two backward a layer, one for the embedding, one for the head; the norm's sum of squares goes over pp+tp.
  expect_bytes(found, "tp", CollectiveKind::all_reduce, (4 * s.layers + 2) * s.reduced(s.rows * s.width * s.element));
  expect_bytes(found, "tp", CollectiveKind::all_gather, (s.n - 1) * 2 * s.rows * s.element);
  expect_bytes(found, "pp+tp", CollectiveKind::all_reduce, s.reduced(8));
}

TEST(BytesTest, SharedRowsGatherAndScatterWhereWholeOnesReduce) {
  Communicator& ranks = world();
  const Layout layout{.style = Style::llama, .mesh = {1, 1, 1, ranks.size()}};
  const Sizes s(layout, ranks.size());
  const double stream = s.reduced(s.rows * s.width * s.element) / 2;
  const Bytes found = moved(ranks, layout);
  // 552 rows divide by 2, 4 and 8. Columns gather their rows again in backward.
  expect_bytes(found, "tp", CollectiveKind::reduce_scatter, (4 * s.layers + 2) * stream);
  expect_bytes(found, "tp", CollectiveKind::all_gather,
               (6 * s.layers + 2) * stream + (s.n - 1) * 2 * s.rows * s.element);
  expect_bytes(found, "tp", CollectiveKind::all_reduce, 0);
}

TEST(BytesTest, ARingPassesKeysAndValuesAndTheirGradients) {
  Communicator& ranks = world();
  const Layout layout{.style = Style::llama, .mesh = {1, 1, ranks.size(), 1}};
  const Sizes s(layout, ranks.size());
  const double kv = 2.0 * static_cast<double>(s.lm.kv_heads * s.lm.d_model / s.lm.heads) * s.element * s.sequences;
  Bytes found = moved(ranks, layout);
  // All ranks together, since their intervals differ by a token: keys and values n − 1 times forward and backward, their f32
  // gradients n times.
  const CollectiveKind kind = CollectiveKind::send_recv;
  double all = found[{"sp", kind}];
  ranks.all_reduce(MutView(&all, {1}, DType::f64)).wait();
  found[{"sp", kind}] = all;
  expect_bytes(found, "sp", kind, s.layers * (3 * s.n - 2) * kv * seq);
}

TEST(BytesTest, HeadExchangeMovesEachRowTwiceForwardAndTwiceBackward) {
  Communicator& ranks = world();
  if (!heads_fit(6, 6, ranks.size())) return;
  Layout layout{.mesh = {1, 1, ranks.size(), 1}};
  layout.sharding.sp_attention = SequenceAttention::exchange;
  const Sizes s(layout, ranks.size());
  // What is sent is filled up to the longest interval and the most heads.
  const double tokens = std::ceil(seq / s.n), heads = std::ceil(6 / s.n);
  const double part = s.sequences * tokens * heads * s.width / 6 * s.element;
  expect_bytes(moved(ranks, layout), "sp", CollectiveKind::all_to_all, 2 * s.layers * (s.n - 1) * (3 + 1) * part);
}

}  // namespace
}  // namespace weft::test
