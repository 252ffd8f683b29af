// What any mesh saves, any other reads.
#include <algorithm>
#include <cstdlib>
#include <filesystem>

#include "parallel/checkpoint.hpp"
#include "parallel/comm/text_exchange.hpp"
#include "tests/distributed/mpi_test.hpp"
#include "tests/distributed/train/training.hpp"

namespace weft::test {
namespace {

/// Each element of each stored tensor of a rank's, with a number that only its place in the whole gives.
template <class Each>
void for_elements(TrainingRun& run, Each&& each) {
  const ParameterStore& store = run.parameters();
  const auto visit = [&](float tensor, auto&& stored_in) {
    float offset = 0;
    for (Parameter* parameter : store.all()) {
      const auto place = std::ranges::find(store.places(), parameter, &ParameterStore::Place::parameter);
      const ParameterStore::Stored stored = stored_in(*place);
      float* data = stored.data.mut().template as<float>();
      stored.slice.for_each_run([&](std::int64_t local, std::int64_t global, std::int64_t count) {
        for (std::int64_t i = 0; i < count; ++i)
          each(data[local + i], tensor + offset + 0.25f * static_cast<float>(global + i));
      });
      offset += 1000;
    }
  };
  visit(1, [&](const ParameterStore::Place& place) { return store.stored_value(place); });
  for (std::size_t i = 0; i < run.optimizer().moments().size(); ++i)
    visit(-1e5f * static_cast<float>(i + 1), [&](const ParameterStore::Place& place) {
      return store.stored_state(place, run.optimizer().moments()[i].flat);
    });
}

/// Every mesh of the ranks, in ZeRO's stages from `stage` on in turn.
std::vector<Layout> meshes(Style style, std::int64_t stage, int n) {
  std::vector<MeshSizes> sizes = {{1, n, 1, 1}, {1, 1, n, 1}, {1, 1, 1, n}};
  // Key-value heads that two tp ranks hold, each with parts of its own on two dp ranks.
  if (n == 8) sizes.insert(sizes.end(), {{1, 2, 1, 4}, {1, 1, 2, 4}, {1, 2, 2, 2}});
  if (n == 4) {
    sizes.push_back({1, 2, 2, 1});
    sizes.push_back({1, 2, 1, 2});
    sizes.push_back({1, 1, 2, 2});
  }
  std::vector<Layout> layouts;
  for (const MeshSizes& mesh : sizes) {
    if (!heads_fit(config(style).heads, config(style).kv_heads, mesh.tp)) continue;
    Layout layout{.style = style, .mesh = mesh};
    layout.bucket_bytes = stage % 2 ? 1 : 50000;
    layout.zero = static_cast<ZeroStage>(stage++ % 4);
    layouts.push_back(layout);
  }
  return layouts;
}

class CheckpointLayoutsTest : public ::testing::Test {
 protected:
  CheckpointLayoutsTest()
      : folder_(from_first_rank(world(), [] {
          std::string name = (std::filesystem::temp_directory_path() / "weft-layouts-XXXXXX").string();
          if (!mkdtemp(name.data())) fail("no temporary folder");
          return name;
        })) {}
  ~CheckpointLayoutsTest() override {
    world().barrier().wait();
    if (world().rank() == 0) std::filesystem::remove_all(folder_);
  }

  std::filesystem::path save(Communicator& ranks, const Layout& layout, std::int64_t number) {
    TrainingRun run(ranks, layout);
    for_elements(run, [](float& element, float value) { element = value; });
    RunState state;
    state.step = state.applied = number;
    const auto error = save_checkpoint(ranks, folder_, {run.exec(), run.parameters(), &run.optimizer()}, state, "");
    EXPECT_FALSE(error) << *error;
    return folder_ / fmt::format("step-{:08}", number);
  }
  static void expect_all(Communicator& ranks, const Layout& layout, const std::filesystem::path& saved) {
    TrainingRun run(ranks, layout);
    for_elements(run, [](float& element, float) { element = 0; });
    load_checkpoint(ranks, read_index(ranks, saved), saved, {run.exec(), run.parameters(), &run.optimizer()});
    std::int64_t wrong = 0;
    for_elements(run, [&](float& element, float value) { wrong += element != value; });
    EXPECT_EQ(wrong, 0) << name_of(layout) << " from " << saved;
  }

  std::filesystem::path folder_;
};

void expect_each_element_once(const std::filesystem::path& saved, const Layout& writer) {
  for (const auto& [name, tensor] : read_index(world(), saved).tensors) {
    std::vector<int> pieces(static_cast<std::size_t>(tensor.shape.numel()));
    for (const CheckpointPiece& piece : tensor.pieces) {
      Slice slice;
      slice.global_shape = tensor.shape;
      slice.boxes = {piece.box};
      slice.for_each_run([&](std::int64_t, std::int64_t global, std::int64_t count) {
        for (std::int64_t i = 0; i < count; ++i) ++pieces[static_cast<std::size_t>(global + i)];
      });
    }
    EXPECT_EQ(std::ranges::count(pieces, 1), tensor.shape.numel()) << name << " of " << name_of(writer);
  }
}

TEST_F(CheckpointLayoutsTest, AnyMeshAndStageReadsWhatAnyOtherWrote) {
  std::int64_t number = 0;
  const auto self = make_self_communicator(comm_log());
  for (const Style style : {Style::gpt2, Style::llama})
    for (const Layout& writer : meshes(style, style == Style::gpt2 ? 0 : 2, world().size())) {
      const std::filesystem::path saved = save(world(), writer, ++number);
      expect_each_element_once(saved, writer);
      for (const Layout& reader : meshes(style, number, world().size())) expect_all(world(), reader, saved);
      expect_all(*self, {.style = style, .zero = static_cast<ZeroStage>(number % 4)}, saved);
    }
}

TEST_F(CheckpointLayoutsTest, ChannelsOfARecurrenceMoveToAnyMeshAndBack) {
  const int n = world().size();
  const auto self = make_self_communicator(comm_log());
  std::int64_t number = 0;
  for (const std::string mixer : {"srupp", "mean", "gru"}) {
    const Layout channels{.mesh = {1, 1, 1, n}, .zero = static_cast<ZeroStage>(number % 4), .mixer = mixer};
    const Layout replicas{.mesh = {1, n, 1, 1}, .mixer = mixer}, alone{.mixer = mixer};
    for (const Layout& writer : {channels, replicas}) {
      const std::filesystem::path saved = save(world(), writer, ++number);
      expect_each_element_once(saved, writer);
      for (const Layout& reader : {channels, replicas}) expect_all(world(), reader, saved);
      expect_all(*self, alone, saved);
    }
  }
}

TEST_F(CheckpointLayoutsTest, HeadsThatSeveralRanksHoldAreWrittenOnceWhereverTheirPartsAreCut) {
  if (world().size() != 8) return;
  std::int64_t number = 0;
  for (std::size_t bytes = 2000; bytes < 50000; bytes += 3000) {
    const Layout writer{
        .bucket_bytes = bytes, .style = Style::llama, .mesh = {1, 2, 1, 4}, .zero = ZeroStage::optimizer};
    const std::filesystem::path saved = save(world(), writer, ++number);
    expect_each_element_once(saved, writer);
    expect_all(world(), {.style = Style::llama, .mesh = {1, 8, 1, 1}}, saved);
  }
}

TEST_F(CheckpointLayoutsTest, AnyNumberOfRanksReadsWhatAnyOtherWrote) {
  const int n = world().size();
  const bool first = world().rank() < 2;
  const auto two = world().split(first ? 0 : 1, world().rank(), "some");
  std::int64_t number = 0;
  for (const Layout& writer : meshes(Style::gpt2, 1, 2)) {
    ++number;
    if (first) save(*two, writer, number);
    world().barrier().wait();
    const std::filesystem::path saved = folder_ / fmt::format("step-{:08}", number);
    expect_each_element_once(saved, writer);
    for (const Layout& reader : meshes(Style::gpt2, number, n)) expect_all(world(), reader, saved);
  }
  for (const Layout& writer : meshes(Style::gpt2, 3, n)) {
    const std::filesystem::path saved = save(world(), writer, ++number);
    for (const Layout& reader : meshes(Style::gpt2, number, two->size())) expect_all(*two, reader, saved);
  }
}

}  // namespace
}  // namespace weft::test
