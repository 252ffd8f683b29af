// What any mesh saves, any other reads.
#include <cstdlib>
#include <filesystem>

#include "parallel/checkpoint.hpp"
#include "parallel/text_exchange.hpp"
#include "tests/distributed/mpi_test.hpp"
#include "tests/distributed/train/training.hpp"

namespace weft::test {
namespace {

/// Each element of each stored tensor of a rank's, with a number that only its place in the whole gives.
template <class Each>
void for_elements(TrainingRun& run, Each&& each) {
  const auto visit = [&](const Tensor& flat, float tensor) {
    float offset = 0;
    for (Parameter* parameter : run.parameters().all())
      for (const ParameterStore::Place& place : run.parameters().places()) {
        if (place.parameter != parameter) continue;
        float* data = flat.mut().as<float>() + place.offset;
        parameter->slice().for_each_run([&](std::int64_t local, std::int64_t global, std::int64_t count) {
          for (std::int64_t i = 0; i < count; ++i)
            each(data[local + i], tensor + offset + 0.25f * static_cast<float>(global + i));
        });
        offset += 1000;
      }
  };
  visit(run.parameters().flat_values(), 1);
  for (std::size_t i = 0; i < run.optimizer().moments().size(); ++i)
    visit(run.optimizer().moments()[i].flat, -1e5f * static_cast<float>(i + 1));
}

std::vector<Layout> meshes(Style style) {
  const int n = world().size();
  std::vector<MeshSizes> sizes = {{1, n, 1, 1}, {1, 1, n, 1}};
  if (heads_fit(config(style).heads, config(style).kv_heads, n)) sizes.push_back({1, 1, 1, n});
  if (n == 4) {
    sizes.push_back({1, 2, 2, 1});
    sizes.push_back({1, 2, 1, 2});
    sizes.push_back({1, 1, 2, 2});
  }
  std::vector<Layout> layouts;
  for (const MeshSizes& mesh : sizes) layouts.push_back({.style = style, .mesh = mesh});
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
    std::int64_t count = 0;
    for (const CheckpointPiece& piece : tensor.pieces) count += piece.box.size.numel();
    EXPECT_EQ(count, tensor.shape.numel()) << name << " of " << name_of(writer);
  }
}

TEST_F(CheckpointLayoutsTest, AnyMeshReadsWhatAnyOtherWrote) {
  std::int64_t number = 0;
  for (const Style style : {Style::gpt2, Style::llama})
    for (const Layout& writer : meshes(style)) {
      const std::filesystem::path saved = save(world(), writer, ++number);
      expect_each_element_once(saved, writer);
      for (const Layout& reader : meshes(style)) expect_all(world(), reader, saved);
      const auto self = make_self_communicator(comm_log());
      expect_all(*self, {.style = style}, saved);
    }
}

}  // namespace
}  // namespace weft::test
