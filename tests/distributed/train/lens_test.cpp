// The lens over ranks: a mixer computes the same however it is spread, bytes are those of docs/communication.md, and what does
// not go over an axis has a row that says so.
#include "launcher/lens/lens.hpp"

#include <gmock/gmock.h>

#include <nlohmann/json.hpp>

#include "launcher/lens/report.hpp"
#include "launcher/lens/specimen.hpp"
#include "tests/distributed/mpi_test.hpp"

namespace weft::test {
namespace {

constexpr std::int64_t width = 192;  // three heads of 64
constexpr std::int64_t seq = 23, batch = 6;

RunOptions one_thread() {
  RunOptions run;
  run.device = DeviceChoice::cpu;
  run.threads = 1;
  return run;
}

MeshSizes along(Axis axis, int ranks) {
  MeshSizes sizes{.dp = 1};
  (axis == Axis::dp ? sizes.dp : axis == Axis::sp ? sizes.sp : sizes.tp) = ranks;
  return sizes;
}

const char* const mixers[] = {"attention", "elman", "lstm", "mean", "mingru", "qrnn", "sru", "sru-affine", "srupp"};
constexpr Axis axes[] = {Axis::dp, Axis::sp, Axis::tp};

/// Of a pass over a mesh: Σ y·r with an r that is the same under any mesh, the same of the gradient of x, and Σ |gradient of a
/// parameter|² over the elements of all ranks.
struct Sums {
  double y = 0, dx = 0, gradients = 0;
};

double dot(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (std::size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

Sums pass_over(Engine& engine, Communicator& ranks, MeshSizes sizes, const std::string& mixer) {
  Mesh mesh(ranks, comm_log(), sizes);
  Specimen specimen(engine, mesh, lens_config(mixer, width), DType::f32, 7);
  const LensShape shape{batch, seq};
  Tensor x = specimen.random(shape, "x");
  const Tensor dy = specimen.random(shape, "dy"), r = specimen.random(shape, "r");
  Tape tape;
  const Tensor y = specimen.forward(x, shape, tape);
  Sums sums;
  sums.y = dot(on_host(engine.exec(), y), on_host(engine.exec(), r));
  specimen.backward(tape, y, dy);
  sums.dx = dot(on_host(engine.exec(), tape.grad_of(x)), on_host(engine.exec(), r));
  for (const Range& range : counted_gradients(specimen.parameters(), mesh, ZeroStage::none)) {
    const float* values = specimen.parameters().flat_grads().view().as<float>();
    for (std::int64_t i = range.begin; i < range.end; ++i)
      sums.gradients += static_cast<double>(values[i]) * static_cast<double>(values[i]);
  }
  // Where rows are whole on each tp rank, and for gradients that dp and sp ranks all have, one rank counts.
  const bool whole_rows = sizes.tp > 1 && tape.grad_of(x).numel() == batch * seq * width;
  if (whole_rows && mesh.coordinate(Axis::tp) > 0) sums.y = sums.dx = 0;
  if (mesh.coordinate(Axis::dp) + mesh.coordinate(Axis::sp) > 0) sums.gradients = 0;
  double all[] = {sums.y, sums.dx, sums.gradients};
  ranks.all_reduce(MutView(all, {3}, DType::f64)).wait();
  return {all[0], all[1], all[2]};
}

TEST(LensSpecimen, ComputesTheSameHoweverItIsSpread) {
  Engine engine(one_thread());
  Communicator& ranks = world();
  int spread = 0;
  for (const std::string mixer : mixers) {
    const auto alone = make_self_communicator(comm_log(), "alone", ranks.rank(), &engine.device());
    const Sums one = pass_over(engine, *alone, {.dp = 1}, mixer);
    for (const Axis axis : axes) {
      const MeshSizes sizes = along(axis, ranks.size());
      if (!lens_misfit(lens_config(mixer, width), sizes, {batch, seq}).empty()) continue;
      const Sums all = pass_over(engine, ranks, sizes, mixer);
      const auto near = [&](double a, double b, const char* what) {
        EXPECT_NEAR(a, b, 1e-4 * (std::abs(b) + 1)) << mixer << " over " << name_of(axis) << ": " << what;
      };
      near(all.y, one.y, "y");
      near(all.dx, one.dx, "dx");
      near(all.gradients, one.gradients, "gradients");
      ++spread;
    }
  }
  EXPECT_GE(spread, 24);
}

class LensOverRanks : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    Engine engine(one_thread());
    Mesh mesh(world(), comm_log(), {});
    LensSpec spec;
    spec.models = {"attention", "qrnn", "mingru", "lstm", "sha-rnn"};
    spec.lengths = {seq + 1};
    spec.widths = {width};
    spec.batches = {1, batch};
    spec.axes = {Axis::sp, Axis::tp, Axis::dp};
    for (int ranks = 2; ranks <= world().size(); ++ranks) spec.ranks.push_back(ranks);
    spec.repeats = 1;
    result = new LensResult(measure_lens({engine, mesh, comm_log()}, spec, {}).value());
  }
  static void TearDownTestSuite() { delete std::exchange(result, nullptr); }

  static const LensRow& row(const std::string& model, Spread spread, std::int64_t sequences = batch) {
    for (const LensRow& row : result->rows)
      if (row.model == model && row.spread == spread && row.batch == sequences) return row;
    throw Error("there is no such row");
  }
  static double sent(const LensRow& row, const std::string& group, const std::string& operation) {
    double bytes = 0;
    for (const Traffic& one : row.traffic)
      if (one.group == group && one.operation == operation) bytes += static_cast<double>(one.bytes);
    return bytes;
  }
  /// f32 gradients, each parameter filled up to 16 elements, as 2(n−1) times all ranks send them.
  static double gradient_bytes(double elements, int ranks) { return 2.0 * (ranks - 1) * 4 * elements; }

  static LensResult* result;
};

LensResult* LensOverRanks::result = nullptr;

TEST_F(LensOverRanks, BytesAreThoseOfTheFormulas) {
  if (world().rank() > 0) return;
  constexpr double d = width, t = seq + 1, b = batch;
  const double attention = 4 * d * d + 4 * d, qrnn = 2 * 3 * d * d + 3 * d + d * d + d;
  for (const int n : result->spec.ranks) {
    const Spread sp{Axis::sp, n}, tp{Axis::tp, n}, dp{Axis::dp, n};
    EXPECT_DOUBLE_EQ(sent(row("attention", dp), "dp+sp", "all_reduce"), gradient_bytes(attention, n));
    EXPECT_DOUBLE_EQ(static_cast<double>(row("attention", dp).comm_bytes()), gradient_bytes(attention, n));
    EXPECT_DOUBLE_EQ(sent(row("qrnn", sp), "dp+sp", "all_reduce"), gradient_bytes(qrnn, n));
    // Every rank sends its part's map, two f32 a channel, to the others, in both passes; a window's token goes to the right and
    // its gradient back.
    for (const char* model : {"qrnn", "mingru"})
      EXPECT_DOUBLE_EQ(sent(row(model, sp), "sp", "all_gather"), 2 * n * (n - 1) * 8 * b * d) << model;
    EXPECT_DOUBLE_EQ(sent(row("qrnn", sp), "sp", "send") + sent(row("qrnn", sp), "sp", "send_recv"),
                     2 * (n - 1) * 4 * b * d);
    // Each rank but the last hands on two states of an LSTM, and gets their gradients.
    EXPECT_DOUBLE_EQ(sent(row("lstm", sp), "sp", "send"), 2 * (n - 1) * 2 * 4 * b * d);
    // Whole rows: the result and the gradient of the input, two tokens wide, are summed.
    EXPECT_DOUBLE_EQ(sent(row("qrnn", tp), "tp", "all_reduce"), 2.0 * (n - 1) * 4 * b * t * (d + 2 * d));
    if (n != 3) continue;
    // Three heads of 64 over three ranks change places: queries, keys, values and the result, there and back.
    EXPECT_DOUBLE_EQ(sent(row("attention", sp), "sp", "all_to_all"), 2.0 * (n - 1) / n * 4 * b * t * d * 4);
    // Shared-out rows: gathered forward and again backward for the weight's gradient, scattered once in each pass.
    EXPECT_DOUBLE_EQ(sent(row("attention", tp), "tp", "all_gather"), 3 * (n - 1) * 4 * b * t * d);
    EXPECT_DOUBLE_EQ(sent(row("attention", tp), "tp", "reduce_scatter"), 2 * (n - 1) * 4 * b * t * d);
  }
  // Over two ranks that is no fewer bytes than the ring's: keys and values go round, in both passes, and their f32 gradients.
  const LensRow& ring = row("attention", {Axis::sp, 2});
  EXPECT_DOUBLE_EQ(sent(ring, "sp", "send_recv"), 3 * 2 * 4 * b * t * d);
}

TEST_F(LensOverRanks, WorkIsSharedOutAndNotRepeated) {
  if (world().rank() > 0) return;
  for (const LensRow& each : result->rows) {
    if (!each.misfit.empty() || each.spread.ranks == 1) continue;
    const LensRow& one = row(each.model, {}, each.batch);
    const auto where = [&] { return each.model + " " + std::string(axis_name(each.spread)); };
    EXPECT_GE(each.work(), 0.99 * one.work()) << where();
    // SRU++'s narrow products are whole on each tp rank.
    const bool repeats = each.model == "srupp" && each.spread.axis == Axis::tp;
    EXPECT_LE(each.work(), (1.1 + (repeats ? 0.2 * (each.spread.ranks - 1) : 0)) * one.work()) << where();
    const double busiest = each.forward_load.work + each.backward_load.work;
    EXPECT_GE(busiest * each.spread.ranks, each.work()) << where();
    // Three heads over two ranks.
    EXPECT_LE(busiest * each.spread.ranks, 1.34 * each.work()) << where();
    EXPECT_GT(each.forward_ms, 0);
    EXPECT_GT(each.backward_ms, 0);
    EXPECT_DOUBLE_EQ(each.speedup, one.milliseconds() / each.milliseconds());
    EXPECT_GT(each.predicted_speedup, 0);
  }
}

// Twice the ranks wait for each other as long as one works; in a scan they do not.
TEST_F(LensOverRanks, TheSpanOfARecurrenceThatIsHandedOnIsThatOfAllItsSteps) {
  if (world().rank() > 0) return;
  for (const std::int64_t sequences : {std::int64_t{1}, batch})
    for (const int n : result->spec.ranks) {
      const LensRow &one = row("lstm", {}, sequences), &all = row("lstm", {Axis::sp, n}, sequences);
      EXPECT_GE(all.forward.span, one.forward.span);
      EXPECT_GE(all.backward.span, one.backward.span);
      EXPECT_LE(all.span(), one.span() + 20 * n);
      EXPECT_GE(all.span_min(), one.span_min());
      EXPECT_LT(row("qrnn", {Axis::sp, n}, sequences).span(), row("qrnn", {}, sequences).span());
    }
}

TEST_F(LensOverRanks, ARelaysPartsAreWhatARankWaitsFor) {
  if (world().rank() > 0) return;
  for (const int n : result->spec.ranks) {
    const LensRow &relay = row("lstm", {Axis::sp, n}), &scan = row("mingru", {Axis::sp, n});
    EXPECT_EQ(scan.forward_load.relay.parts, 0);
    // Six sequences go as one part: chosen parts have four or more.
    EXPECT_EQ(relay.forward_load.relay.parts, 1);
    EXPECT_EQ(relay.backward_load.relay.parts, 1);
    EXPECT_EQ(relay.forward_load.relay.span, (seq + 1) / n);
    EXPECT_GT(relay.forward_load.relay.work, 0);
    EXPECT_LT(relay.forward_load.relay.work, relay.forward_load.work);
  }
}

TEST(LensRecall, IsTheSameWhicheverRankTrains) {
  Engine engine(one_thread());
  const RecallSpec spec{{"elman", "mean", "mingru"}, 1, DType::f32, 3};
  Mesh mesh(world(), comm_log(), {});
  const auto all = measure_recall({engine, mesh, comm_log()}, spec, {}).value();
  const auto self = make_self_communicator(comm_log(), "alone", world().rank(), &engine.device());
  Mesh alone(*self, comm_log(), {});
  const auto one = measure_recall({engine, alone, comm_log()}, spec, {}).value();
  ASSERT_EQ(all.size(), 3u);
  for (std::size_t i = 0; i < all.size(); ++i) {
    EXPECT_EQ(all[i].model, spec.models[i]);
    EXPECT_EQ(all[i].mean, one[i].mean);
    EXPECT_EQ(all[i].parameters, one[i].parameters);
    ASSERT_EQ(all[i].accuracy.size(), 8u);
    for (std::size_t bin = 0; bin < 8; ++bin) EXPECT_EQ(all[i].accuracy[bin].y, one[i].accuracy[bin].y);
  }
  const bool last = world().rank() == world().size() - 1;
  EXPECT_FALSE(measure_recall({engine, mesh, comm_log()}, spec, {.progress = {}, .stop = [last] { return last; }}));
}

TEST_F(LensOverRanks, WhatDoesNotGoOverAnAxisSaysSo) {
  if (world().rank() > 0) return;
  const std::size_t spreads = 1 + 3 * result->spec.ranks.size();
  ASSERT_EQ(result->rows.size(), 5 * 2 * spreads);
  EXPECT_EQ(row("lstm", {Axis::sp, 2}).misfit, "");
  EXPECT_EQ(row("lstm", {Axis::tp, 2}).misfit, "");
  EXPECT_THAT(row("sha-rnn", {Axis::sp, 2}).misfit, testing::HasSubstr("--sp: found 2; the mixer sha-rnn"));
  EXPECT_THAT(row("lstm", {Axis::dp, 2}, 1).misfit, testing::HasSubstr("1 sequences do not divide over 2"));
  EXPECT_EQ(row("lstm", {Axis::dp, 2}).misfit, "");
  for (const nlohmann::json& written : lens_json(*result)) {
    const bool fits = !written.contains("misfit");
    for (const char* field : {"work", "span", "span_min", "parallelism", "forward_ms", "backward_ms",
                              "activation_bytes", "comm_bytes", "speedup", "predicted_speedup"})
      EXPECT_EQ(written.at(field).is_number(), fits) << field;
    EXPECT_EQ(written.at("axis") == "none", written.at("ranks") == 1);
    if (!fits) continue;
    std::uint64_t sum = 0;
    for (const auto& one : written.at("comm")) sum += one.at("bytes").get<std::uint64_t>();
    EXPECT_EQ(written.at("comm_bytes"), sum);
  }
}

}  // namespace
}  // namespace weft::test
