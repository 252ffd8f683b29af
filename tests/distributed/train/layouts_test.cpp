// Every mesh of ranks, and gradient accumulation in their place, trains what one rank trains (docs/numerics.md).
#include <cstring>
#include <map>

#include "models/registry.hpp"
#include "parallel/layers/channels.hpp"
#include "tests/distributed/mpi_test.hpp"
#include "tests/distributed/train/breakable_transport.hpp"
#include "tests/distributed/train/training.hpp"
#include "tests/unit/io/temp_folder.hpp"

namespace weft::test {
namespace {

class LayoutsTest : public ::testing::Test {
 public:
  static const Training& alone(Style style, const std::string& mixer = "attention") {
    static std::map<std::pair<Style, std::string>, Training> runs;
    if (!runs.contains({style, mixer})) {
      const std::unique_ptr<Communicator> self = make_self_communicator(comm_log());
      Layout layout;
      layout.style = style;
      layout.mixer = mixer;
      runs.emplace(std::pair(style, mixer), train(*self, layout));
    }
    return runs.at({style, mixer});
  }

  static void expect_equal(const Layout& layout, const std::string& what = {}) {
    const Training run = train(world(), layout);
    const Difference difference = compare(alone(layout.style, layout.mixer), run);
    EXPECT_TRUE(run.holders_agree) << "ranks that hold the same elements differ";
    EXPECT_LE(difference.gradient, 1) << what;
    EXPECT_LE(difference.loss, 1) << what;
    EXPECT_LE(difference.grad_norm, 1) << what;
    EXPECT_EQ(run.initial, alone(layout.style, layout.mixer).initial) << what;
  }
};

TEST_F(LayoutsTest, EveryMeshEqualsOneRank) {
  for (const Layout& layout : sweep(world().size())) expect_equal(layout, name_of(layout));
}

TEST_F(LayoutsTest, ChannelsOfARecurrenceOverTensorParallelRanksEqualOneRank) {
  const int ranks = world().size();
  if (ranks == 1 || ranks > 4) return;  // alone it is the reference itself; more ranks show nothing new
  for (const std::string mixer : {"mingru", "minlstm", "qrnn", "qrnn-f", "sru", "sru-affine", "srupp", "mean"})
    for (const bool shared : {true, false}) {
      if (shared && mixer == "qrnn") continue;  // its window reads whole rows
      Layout layout;
      layout.mixer = mixer;
      layout.mesh = shared || ranks < 4 ? MeshSizes{1, 1, 1, ranks} : MeshSizes{1, 2, 1, 2};
      layout.sharding.tp_sequence = shared;
      layout.sharding.chunk_rows = 32;
      layout.micro_batch = shared ? 5 : batch;
      expect_equal(layout, name_of(layout));
    }
}

TEST_F(LayoutsTest, UnitsThatMeetInEveryStepOverTensorParallelRanksEqualOneRank) {
  const int ranks = world().size();
  if (ranks == 1 || ranks > 4) return;
  for (const std::string mixer : {"elman", "lstm", "gru"})
    for (const bool shared : {true, false}) {
      Layout layout;
      layout.mixer = mixer;
      layout.mesh = shared || ranks < 4 ? MeshSizes{1, 1, 1, ranks} : MeshSizes{1, 2, 1, 2};
      layout.sharding.tp_sequence = shared;
      layout.sharding.chunk_rows = 32;
      expect_equal(layout, name_of(layout));
    }
}

TEST_F(LayoutsTest, ChannelsBesideReplicasEqualOneRankInEveryZeroStageAndRecomputed) {
  if (world().size() != 4) return;
  for (const std::string mixer : {"sru", "srupp", "mean", "gru"})
    for (int stage = 1; stage <= 3; ++stage) {
      Layout layout;
      layout.mixer = mixer;
      layout.mesh = {1, 2, 1, 2};
      layout.zero = static_cast<ZeroStage>(stage);
      layout.recompute = static_cast<Recompute>(3 - stage);
      layout.sharding.tp_sequence = stage != 2;
      layout.micro_batch = 7;
      expect_equal(layout, name_of(layout));
    }
}

TEST_F(LayoutsTest, AMeshThatAMixerDoesNotGoOverIsRefusedInTheRegistrysWords) {
  const int ranks = world().size();
  if (ranks == 1) return;
  for (const MixerEntry& entry : mixers())
    for (const MeshSizes& mesh : {MeshSizes{1, 1, ranks, 1}, MeshSizes{1, 1, 1, ranks}}) {
      Layout layout;
      layout.mixer = entry.name;
      layout.mesh = mesh;
      const std::string wrong = mixer_misfit(entry, mesh.sp, mesh.tp, true);
      if (wrong.empty()) continue;
      EXPECT_EQ(user_error([&] { TrainingRun(world(), layout); }), wrong);
    }
}

TEST_F(LayoutsTest, ChunksOfTheBoomLayerOverTensorParallelRanksEqualOneRank) {
  const int ranks = world().size();
  if (ranks == 1 || ranks > 4) return;
  for (const bool shared : {true, false}) {
    Layout layout;
    layout.style = Style::boom;
    layout.mesh = {1, 1, 1, ranks};  // three share four chunks unevenly
    layout.sharding.tp_sequence = shared;
    layout.sharding.chunk_rows = 32;
    layout.micro_batch = shared ? 5 : batch;
    expect_equal(layout, name_of(layout));
  }
}

TEST_F(LayoutsTest, FewerChannelsThanRanksAreRefused) {
  const int ranks = world().size();
  if (ranks == 1) return;
  Mesh mesh(world(), comm_log(), {1, 1, 1, ranks});
  ParameterStore store;
  EXPECT_EQ(user_error([&] {
              held_channels({Builder(store), mesh}, ranks - 1);
            }),
            fmt::format("--tp: found {}; {} channels go over that many ranks or fewer", ranks, ranks - 1));
}

TEST_F(LayoutsTest, HeadsWithRelativePositionsOverTensorParallelRanksEqualOneRank) {
  const int ranks = world().size();
  if (ranks == 1 || ranks > 4) return;
  for (const bool shared : {true, false}) {
    Layout layout;
    layout.mixer = "transformer-xl";
    layout.mesh = shared || ranks < 4 ? MeshSizes{1, 1, 1, ranks} : MeshSizes{1, 2, 1, 2};
    layout.sharding.tp_sequence = shared;
    layout.sharding.chunk_rows = 32;
    layout.micro_batch = shared ? 5 : batch;
    expect_equal(layout, name_of(layout));
  }
}

TEST_F(LayoutsTest, TokensOfALinearRecurrenceOverSequenceParallelRanksEqualOneRank) {
  const int ranks = world().size();
  if (ranks == 1 || ranks > 4) return;
  for (const std::string mixer : {"mean", "mingru", "minlstm", "qrnn", "qrnn-f", "sru-affine"}) {
    Layout layout;
    layout.mixer = mixer;
    layout.mesh = {1, 1, ranks, 1};
    layout.micro_batch = 5;
    expect_equal(layout, name_of(layout));
    const bool by_channels = find_mixer(mixer).shards_tp;
    if (ranks < 4) continue;
    // Tokens beside channels or sequences, with all else that is shared out.
    layout.mesh = by_channels ? MeshSizes{1, 1, 2, 2} : MeshSizes{1, 2, 2, 1};
    layout.sharding.tp_sequence = mixer != "qrnn";
    layout.zero = ZeroStage::parameters;
    layout.recompute = Recompute::block;
    expect_equal(layout, name_of(layout));
  }
}

TEST_F(LayoutsTest, TokensOfARecurrenceThatGoesFromRankToRankInPartsOfTheBatchEqualOneRank) {
  const int ranks = world().size();
  if (ranks == 1 || ranks > 4) return;
  for (const std::string mixer : {"elman", "lstm", "gru", "sru", "srupp"})
    for (const std::int64_t parts : {0, 1, 3}) {
      Layout layout;
      layout.mixer = mixer;
      layout.mesh = {1, 1, ranks, 1};
      layout.micro_batch = parts == 1 ? batch : 5;
      layout.sharding.relay_parts = parts;
      expect_equal(layout, name_of(layout));
      if (ranks < 4 || parts < 3) continue;
      layout.mesh = {1, 2, 2, 1};
      layout.zero = ZeroStage::parameters;
      layout.recompute = mixer == "gru" ? Recompute::attention : Recompute::block;
      expect_equal(layout, name_of(layout));
      layout.mesh = {1, 1, 2, 2};
      layout.micro_batch = batch;
      expect_equal(layout, name_of(layout));
    }
}

TEST_F(LayoutsTest, TheReferenceRunLearns) {
  for (const Style style : {Style::gpt2, Style::llama, Style::boom})
    EXPECT_GT(alone(style).losses.front() - alone(style).losses.back(), 1.0);
}

TEST_F(LayoutsTest, DataParallelRanksEqualOneRank) { expect_equal({}); }

TEST_F(LayoutsTest, AccumulationEqualsTheWholeBatchEvenInUnequalPieces) {
  for (const std::int64_t micro_batch : {1, 5}) expect_equal({micro_batch, 4096, DType::f32});
}

TEST_F(LayoutsTest, BucketSizeDoesNotMatter) {
  expect_equal({4, 1, DType::f32});
  expect_equal({4, std::size_t{1} << 30, DType::f32});
}

/// Four ranks on two axes; fewer on one.
Layout mixed(DType compute) {
  Layout layout;
  layout.micro_batch = 4;
  layout.compute = compute;
  layout.sharding.chunk_rows = 32;
  if (world().size() == 4) layout.mesh = {1, 1, 2, 2};
  return layout;
}

TEST_F(LayoutsTest, TheSameLayoutTwiceGivesTheSameBits) {
  for (const auto& [dtype, zero] : {std::pair{DType::f32, ZeroStage::none},
                                    {DType::bf16, ZeroStage::none},
                                    {DType::f32, ZeroStage::gradients},
                                    {DType::bf16, ZeroStage::parameters}}) {
    Layout layout = mixed(dtype);
    layout.zero = zero;
    const Training one = train(world(), layout), two = train(world(), layout);
    EXPECT_EQ(std::memcmp(one.values.data(), two.values.data(), one.values.size() * sizeof(float)), 0);
    EXPECT_EQ(one.losses, two.losses);
  }
}

void expect_near_f32(const Layout& layout) {
  const Training run = train(world(), layout);
  const std::vector<double>& right = LayoutsTest::alone(layout.style).losses;
  for (std::size_t i = 0; i < run.losses.size(); ++i)
    EXPECT_NEAR(run.losses[i], right[i], 5e-3 * right[i]) << "step " << i + 1 << " of " << name_of(layout);
  EXPECT_TRUE(run.holders_agree) << name_of(layout);
}

TEST_F(LayoutsTest, Bf16StaysNearF32OnEveryKindOfMesh) {
  expect_near_f32(mixed(DType::bf16));
  const std::vector<Layout> all = sweep(world().size());
  for (std::size_t i = 0; world().size() <= 4 && i < all.size(); i += 3) {
    Layout layout = all[i];
    layout.compute = DType::bf16;
    expect_near_f32(layout);
  }
}

TEST_F(LayoutsTest, GradientsThatTravelInBf16StayNearF32InEveryStage) {
  for (int stage = 0; stage <= 3; ++stage) {
    Layout layout;
    layout.zero = static_cast<ZeroStage>(stage);
    layout.wire = Wire::bf16;
    layout.micro_batch = 7;
    expect_near_f32(layout);
  }
}

TEST_F(LayoutsTest, AllRanksHoldTheSameBits) {
  Training run = train(world(), {});
  std::vector<float> sums = run.values;
  Communicator& all = world();
  all.broadcast(MutView(sums.data(), {static_cast<std::int64_t>(sums.size())}, DType::f32), 0).wait();
  EXPECT_EQ(std::memcmp(sums.data(), run.values.data(), sums.size() * sizeof(float)), 0);
}

/// Collectives of a group, of one kind and dtype; `tag` of messages, `single` those of one element or of more.
struct Chosen {
  std::string group;
  CollectiveKind kind = CollectiveKind::all_reduce;
  DType dtype = DType::f32;
  int tag = 0;
  std::optional<bool> single = {};
  Break broken = {false, 1};
};

/// Whether a training with these broken is told from one rank's, and took part in any.
void expect_seen(const Layout& layout, const Chosen& chosen) {
  bool met = false;
  const auto ranks =
      make_breakable(world(), comm_log(), [&](const std::string& group, const Collective& what) -> Break {
        const bool other_size = chosen.single && *chosen.single != (what.output.numel() == 1);
        // The world's collectives are the test's own.
        if (group != chosen.group || what.kind != chosen.kind || !what.output || what.output.dtype != chosen.dtype ||
            what.tag != chosen.tag || other_size)
          return {};
        met = true;
        return chosen.broken;
      });
  const std::string what = fmt::format("{} of {} in {}", name_of(chosen.kind), chosen.group, name_of(layout));
  EXPECT_FALSE(compare(LayoutsTest::alone(layout.style, layout.mixer), train(*ranks, layout)).equal()) << what;
  EXPECT_TRUE(met) << what;
}

constexpr Break twice{true, 2};

TEST_F(LayoutsTest, ASkippedOrScaledReductionOverReplicasIsSeen) {
  if (world().size() == 1) return;  // nothing is reduced
  expect_seen({}, {"dp+sp"});
  expect_seen({}, {.group = "dp+sp", .broken = twice});
  expect_seen({}, {.group = "dp+sp", .dtype = DType::f64, .single = true});
  expect_seen({}, {.group = "pp+dp+sp+tp", .dtype = DType::f64});
  const auto whole = make_breakable(world(), comm_log(), [](const std::string&, const Collective&) { return Break(); });
  EXPECT_TRUE(compare(alone(Style::gpt2), train(*whole, {})).equal());
}

TEST_F(LayoutsTest, ABrokenCollectiveOfAnyZeroStageIsSeen) {
  if (world().size() == 1) return;  // nothing is shared out
  for (const ZeroStage stage : {ZeroStage::optimizer, ZeroStage::gradients, ZeroStage::parameters}) {
    Layout layout;
    layout.zero = stage;
    layout.micro_batch = 7;
    expect_seen(layout, {.group = "dp+sp", .kind = CollectiveKind::reduce_scatter});
    expect_seen(layout, {.group = "dp+sp", .kind = CollectiveKind::reduce_scatter, .broken = twice});
    expect_seen(layout, {.group = "dp+sp", .kind = CollectiveKind::all_gather, .broken = twice});
    expect_seen(layout, {.group = "pp+dp+sp+tp", .dtype = DType::f64, .single = true});
    if (stage != ZeroStage::parameters) expect_seen(layout, {.group = "dp+sp", .kind = CollectiveKind::all_gather});
  }
}

TEST_F(LayoutsTest, ABrokenTensorParallelCollectiveIsSeen) {
  if (world().size() != 4) return;
  Layout layout;
  layout.mesh = {1, 1, 1, 4};
  expect_seen(layout, {.group = "tp", .kind = CollectiveKind::reduce_scatter});
  expect_seen(layout, {.group = "tp", .kind = CollectiveKind::all_gather, .broken = twice});
  expect_seen(layout, {"dp+sp+tp"});
  expect_seen(layout, {.group = "pp+tp", .dtype = DType::f64});
  layout.sharding.tp_sequence = false;
  expect_seen(layout, {"tp"});
  layout.style = Style::llama;
  expect_seen(layout, {"tp/2"});
}

TEST_F(LayoutsTest, ABrokenCollectiveOfChannelsIsSeen) {
  if (world().size() != 4) return;
  Layout layout;
  layout.mesh = {1, 1, 1, 4};
  layout.mixer = "srupp";
  expect_seen(layout, {.group = "tp", .kind = CollectiveKind::all_to_all, .broken = twice});
  expect_seen(layout, {"dp+sp+tp"});
  layout.sharding.tp_sequence = false;
  expect_seen(layout, {"tp"});
  layout.mixer = "lstm";
  expect_seen(layout, {.group = "tp", .kind = CollectiveKind::all_gather, .broken = twice});
  expect_seen(layout, {.group = "tp", .kind = CollectiveKind::reduce_scatter, .broken = twice});
}

TEST_F(LayoutsTest, ABrokenSequenceParallelMessageIsSeen) {
  if (world().size() != 4) return;
  Layout layout;
  layout.mesh = {1, 1, 4, 1};
  for (const int tag : {0, 1})
    expect_seen(layout, {.group = "sp", .kind = CollectiveKind::send_recv, .tag = tag, .broken = twice});
  layout.sharding.sp_attention = SequenceAttention::exchange;
  expect_seen(layout, {.group = "sp", .kind = CollectiveKind::all_to_all, .broken = twice});
}

}  // namespace
}  // namespace weft::test
