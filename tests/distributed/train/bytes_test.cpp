// The bytes that each kind of collective moves in a step are those of the formulas in docs/communication.md.
#include <algorithm>
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
  run.settle();
  Bytes bytes;
  for (const CollectiveTotals& total : comm_log().totals())
    bytes[{total.group, total.kind}] -= static_cast<double>(total.wire_bytes);
  run.step(2);
  run.settle();
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

TEST(BytesTest, ChannelsOfARecurrenceMoveNothingInsideIt) {
  Communicator& ranks = world();
  if (ranks.size() > 4) return;  // more ranks show nothing new
  for (const std::string mixer : {"mingru", "mean", "sru", "sru-affine", "srupp"})
    for (const bool shared : {true, false}) {
      SCOPED_TRACE(fmt::format("{} {}", mixer, shared ? "shared-out rows" : "whole rows"));
      Layout layout{.mesh = {1, 1, 1, ranks.size()}, .mixer = mixer};
      layout.sharding.tp_sequence = shared;
      const LmConfig lm = config(layout);
      const Sizes s(layout, ranks.size());
      const double stream = s.reduced(s.rows * static_cast<double>(lm.d_model) * s.element) / 2;
      // Shares of 50 channels are filled up to the largest.
      const double columns = (s.n - 1) * s.rows * std::ceil(static_cast<double>(lm.d_model) / s.n) * s.element;
      const double loss = (s.n - 1) * 2 * s.rows * s.element;
      const bool highway = mixer.starts_with("sru");
      const Bytes found = moved(ranks, layout);
      const auto expect = [&](CollectiveKind kind, double bytes) { expect_bytes(found, "tp", kind, bytes); };
      expect(CollectiveKind::all_reduce, shared ? 0 : ((highway ? 3 : 4) * s.layers + 2) * 2 * stream);
      expect(CollectiveKind::reduce_scatter, shared ? ((highway ? 3 : 4) * s.layers + 2) * stream : 0);
      expect(CollectiveKind::all_gather, loss + (shared    ? ((highway ? 4 : 6) * s.layers + 2) * stream
                                                 : highway ? s.layers * columns
                                                           : 0));
      expect(CollectiveKind::all_to_all, shared && highway ? 2 * s.layers * columns / s.n : 0);
    }
}

TEST(BytesTest, UnitsThatMeetInEveryStepMoveTheirStatesAndGradientsInEach) {
  Communicator& ranks = world();
  if (ranks.size() > 4) return;  // more ranks show nothing new
  for (const std::string mixer : {"elman", "lstm", "gru"})
    for (const bool shared : {true, false}) {
      SCOPED_TRACE(fmt::format("{} {}", mixer, shared ? "shared-out rows" : "whole rows"));
      Layout layout{.mesh = {1, 1, 1, ranks.size()}, .mixer = mixer};
      layout.sharding.tp_sequence = shared;
      const LmConfig lm = config(layout);
      const Sizes s(layout, ranks.size());
      const double stream = s.reduced(s.rows * static_cast<double>(lm.d_model) * s.element) / 2;
      const double step = (s.n - 1) * s.sequences * std::ceil(static_cast<double>(lm.d_model) / s.n) * s.element;
      const double steps = s.layers * (seq - 1) * step, loss = (s.n - 1) * 2 * s.rows * s.element;
      const Bytes found = moved(ranks, layout);
      const auto expect = [&](CollectiveKind kind, double bytes) { expect_bytes(found, "tp", kind, bytes); };
      expect(CollectiveKind::all_reduce, shared ? 0 : (4 * s.layers + 2) * 2 * stream);
      expect(CollectiveKind::reduce_scatter, steps + (shared ? (4 * s.layers + 2) * stream : 0));
      expect(CollectiveKind::all_gather, steps + loss + (shared ? (6 * s.layers + 2) * stream : 0));
    }
}

TEST(BytesTest, ARingPassesKeysAndValuesAndTheirGradients) {
  Communicator& ranks = world();
  const Layout layout{.style = Style::llama, .mesh = {1, 1, ranks.size(), 1}};
  const Sizes s(layout, ranks.size());
  const double kv = 2.0 * static_cast<double>(s.lm.kv_heads * s.lm.d_model / s.lm.heads) * s.element * s.sequences;
  Bytes found = moved(ranks, layout);
  // All ranks together, since their intervals differ by a token: keys and values n − 1 times forward and backward, and
  // as often their f32 gradients.
  const CollectiveKind kind = CollectiveKind::send_recv;
  double all = found[{"sp", kind}];
  ranks.all_reduce(MutView(&all, {1}, DType::f64)).wait();
  found[{"sp", kind}] = all;
  expect_bytes(found, "sp", kind, s.layers * 3 * (s.n - 1) * kv * seq);
}

TEST(BytesTest, LinearRecurrencesGatherTheMapsOfTheirPartsAndPassAWindowsTokens) {
  Communicator& ranks = world();
  for (const std::string mixer : {"qrnn", "mingru"}) {
    Layout layout{.mesh = {1, 1, ranks.size(), 1}};
    layout.mixer = mixer;
    const LmConfig lm = config(layout);
    const double n = ranks.size(), layers = static_cast<double>(lm.layers), width = static_cast<double>(lm.d_model);
    Bytes found = moved(ranks, layout);
    expect_bytes(found, "sp", CollectiveKind::all_gather, 2 * layers * (n - 1) * 8 * batch * width);
    // All ranks together: those at the ends have one neighbour. A recv stands in the ledger as a send does.
    double all = found[{"sp", CollectiveKind::send_recv}] + found[{"sp", CollectiveKind::send}];
    ranks.all_reduce(MutView(&all, {1}, DType::f64)).wait();
    EXPECT_NEAR(all, mixer == "qrnn" ? 2 * layers * (n - 1) * 4 * batch * width : 0, 1e-6 * (all + 1));
  }
}

TEST(BytesTest, RecurrencesHandTheirStateOnOnceAndItsGradientBack) {
  Communicator& ranks = world();
  for (const auto& [mixer, states] : {std::pair<std::string, double>{"lstm", 2}, {"gru", 1}, {"sru", 1}})
    for (const std::int64_t parts : {1, 4}) {
      Layout layout{.mesh = {1, 1, ranks.size(), 1}};
      layout.mixer = mixer;
      layout.sharding.relay_parts = parts;
      const LmConfig lm = config(layout);
      const double layers = static_cast<double>(lm.layers), width = static_cast<double>(lm.d_model);
      const double n = ranks.size();
      double all = moved(ranks, layout)[{"sp", CollectiveKind::send}];
      ranks.all_reduce(MutView(&all, {1}, DType::f64)).wait();
      EXPECT_NEAR(all, 2 * layers * (n - 1) * states * 4 * batch * width, 1e-6 * (all + 1)) << mixer << " " << parts;
    }
}

TEST(BytesTest, HeadExchangeMovesEachRowTwiceForwardAndTwiceBackward) {
  Communicator& ranks = world();
  int checked = 0;
  for (const Style style : {Style::gpt2, Style::llama}) {
    Layout layout{.style = style, .mesh = {1, 1, ranks.size(), 1}};
    const Sizes s(layout, ranks.size());
    if (!heads_fit(s.lm.heads, s.lm.kv_heads, ranks.size())) continue;
    layout.sharding.sp_attention = SequenceAttention::exchange;
    std::int64_t heads = 0, kv_heads = 0;
    for (int rank = 0; rank < ranks.size(); ++rank) {
      const HeadShare share = share_heads(s.lm.heads, s.lm.kv_heads, ranks.size(), rank);
      heads = std::max(heads, share.heads.size());
      kv_heads = std::max(kv_heads, share.kv_heads.size());
    }
    // What is sent is filled up to the longest interval and the most heads: q and the result, k and v.
    const double row = static_cast<double>((2 * heads + 2 * kv_heads) * s.lm.d_model / s.lm.heads) * s.element;
    expect_bytes(moved(ranks, layout), "sp", CollectiveKind::all_to_all,
                 2 * s.layers * (s.n - 1) * s.sequences * std::ceil(seq / s.n) * row);
    ++checked;
  }
  EXPECT_GT(checked, 0);
}

/// f32 bytes of all parameters, as buckets are filled up.
double flat_bytes(Communicator& ranks, const Layout& layout) {
  TrainingRun run(ranks, layout);
  return 4.0 * static_cast<double>(run.parameters().flat_size());
}

class ZeroBytesTest : public ::testing::TestWithParam<Style> {
 protected:
  Layout layout(ZeroStage stage, std::int64_t micro_batch = batch) const {
    return {.micro_batch = micro_batch, .style = GetParam(), .mesh = {1, world().size(), 1, 1}, .zero = stage};
  }
};

INSTANTIATE_TEST_SUITE_P(Styles, ZeroBytesTest, ::testing::Values(Style::gpt2, Style::llama),
                         [](const auto& row) { return row.param == Style::gpt2 ? "gpt2" : "llama"; });

TEST_P(ZeroBytesTest, StageOneScattersGradientsAndGathersParameters) {
  Communicator& ranks = world();
  const Layout one = layout(ZeroStage::optimizer, 1);
  const Sizes s(one, ranks.size());
  const Bytes found = moved(ranks, one);
  const double part = s.reduced(flat_bytes(ranks, one)) / 2;
  expect_bytes(found, "dp+sp", CollectiveKind::reduce_scatter, part);
  expect_bytes(found, "dp+sp", CollectiveKind::all_gather, part);
  expect_bytes(found, "dp+sp", CollectiveKind::all_reduce, s.reduced(8));
}

TEST_P(ZeroBytesTest, GradientsInBf16AreHalfTheBytesAndParametersTravelInF32) {
  Communicator& ranks = world();
  Layout one = layout(ZeroStage::optimizer);
  one.wire = Wire::bf16;
  const Sizes s(one, ranks.size());
  const Bytes found = moved(ranks, one);
  const double part = s.reduced(flat_bytes(ranks, one)) / 2;
  expect_bytes(found, "dp+sp", CollectiveKind::reduce_scatter, part / 2);
  expect_bytes(found, "dp+sp", CollectiveKind::all_gather, part);
}

TEST_P(ZeroBytesTest, ReplicasOfTensorParallelRanksShareOutTheirShards) {
  Communicator& ranks = world();
  if (ranks.size() < 4) return;  // two axes
  Layout both = layout(ZeroStage::gradients);
  both.mesh = {1, ranks.size() / 2, 1, 2};
  const Bytes found = moved(ranks, both);
  TrainingRun run(ranks, both);
  // Norms' gradients are sums over tp too: their replicas are all ranks.
  double shards = 0, norms = 0;
  for (const ParameterStore::Bucket& bucket : run.parameters().buckets()) {
    const ParameterStore::Place& first = run.parameters().places()[bucket.first_place];
    const bool over_tp = summed_axes(first.parameter->slice())[static_cast<std::size_t>(Axis::tp)];
    (over_tp ? norms : shards) += 4.0 * static_cast<double>(bucket.end - bucket.begin);
  }
  const double replicas = ranks.size() / 2.0, all = ranks.size();
  EXPECT_GT(norms, 0);
  for (const CollectiveKind kind : {CollectiveKind::reduce_scatter, CollectiveKind::all_gather}) {
    expect_bytes(found, "dp+sp", kind, (replicas - 1) / replicas * shards);
    expect_bytes(found, "dp+sp+tp", kind, (all - 1) / all * norms);
  }
}

TEST_P(ZeroBytesTest, StageTwoScattersTheGradientsOfEachMicroBatch) {
  Communicator& ranks = world();
  const std::int64_t local = batch / ranks.size();
  for (const std::int64_t micro_batches : {std::int64_t{1}, std::int64_t{3}}) {
    const Layout two = layout(ZeroStage::gradients, (local + micro_batches - 1) / micro_batches);
    const Sizes s(two, ranks.size());
    const Bytes found = moved(ranks, two);
    const double part = s.reduced(flat_bytes(ranks, two)) / 2;
    expect_bytes(found, "dp+sp", CollectiveKind::reduce_scatter, static_cast<double>(micro_batches) * part);
    expect_bytes(found, "dp+sp", CollectiveKind::all_gather, part);
  }
}

TEST_P(ZeroBytesTest, StageThreeGathersEachParameterOnceForwardAndOnceBackward) {
  Communicator& ranks = world();
  const std::int64_t local = batch / ranks.size();
  for (const Recompute recompute : {Recompute::none, Recompute::block})
    for (const std::int64_t micro_batches : {std::int64_t{1}, std::int64_t{3}}) {
      Layout three = layout(ZeroStage::parameters, (local + micro_batches - 1) / micro_batches);
      three.recompute = recompute;
      const Sizes s(three, ranks.size());
      const Bytes found = moved(ranks, three);
      TrainingRun run(ranks, three);
      // A tied table is embedding and head; untied ones are used forward alone, where the loss makes their gradients.
      double gathered = 0;
      for (const ParameterStore::Bucket& bucket : run.parameters().buckets()) {
        const bool forward_alone = GetParam() == Style::llama && (bucket.unit == "embed" || bucket.unit == "head");
        gathered += (forward_alone ? 1 : 2) * 4.0 * static_cast<double>(bucket.end - bucket.begin);
      }
      const auto rounds = static_cast<double>(micro_batches);
      expect_bytes(found, "dp+sp", CollectiveKind::reduce_scatter, rounds * s.reduced(flat_bytes(ranks, three)) / 2);
      expect_bytes(found, "dp+sp", CollectiveKind::all_gather, rounds * s.reduced(gathered) / 2);
    }
}

}  // namespace
}  // namespace weft::test
