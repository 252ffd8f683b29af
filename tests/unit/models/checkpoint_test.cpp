#include "parallel/checkpoint_save.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <fstream>
#include <future>

#include "core/cpu/device.hpp"
#include "tests/unit/io/temp_folder.hpp"
#include "tests/unit/models/tiny_model.hpp"

namespace weft {
namespace {

namespace fs = std::filesystem;

class CheckpointTest : public ::testing::Test {
 protected:
  test::TempFolder temp;
  TinyModel tiny{tiny_config()};
  Optimizer optimizer{AdamWSpec{}, tiny.store, tiny.engine.exec};

  fs::path save(std::int64_t step) {
    RunState state;
    state.step = state.applied = step;
    state.next_sample = 7 * step;
    state.seed = 3;
    const auto error = save_checkpoint(*tiny.world, temp.path() / "checkpoints",
                                       {tiny.engine.exec, tiny.store, &optimizer}, state, "model = transformer\n");
    EXPECT_FALSE(error) << *error;
    return list_checkpoints(temp.path() / "checkpoints").back();
  }
  CheckpointIndex load(const fs::path& folder, const CheckpointTarget& target) {
    CheckpointIndex index = read_index(*tiny.world, folder);
    load_checkpoint(*tiny.world, index, folder, target);
    return index;
  }
  static std::string refusal(const std::function<void()>& run) {
    try {
      run();
    } catch (const UserError& error) {
      return error.what();
    }
    return "";
  }
};

TEST_F(CheckpointTest, RestoresEveryBitOfParametersOptimizerAndPosition) {
  for (const Optimizer::Moment& moment : optimizer.moments()) {
    float* data = moment.flat.mut().as<float>();
    for (const ParameterStore::Place& place : tiny.store.places())
      for (std::int64_t i = 0; i < place.count; ++i)
        data[place.offset + i] = static_cast<float>(place.offset + i) * 0.37f;
  }
  const fs::path folder = save(42);
  EXPECT_EQ(folder.filename(), "step-00000042");

  TinyModel other(tiny_config());
  other.store.initialize(other.engine.exec, 99);
  Optimizer state(AdamWSpec{}, other.store, other.engine.exec);
  const CheckpointIndex index = load(folder, {other.engine.exec, other.store, &state});
  EXPECT_EQ(index.state.next_sample, 294);
  EXPECT_EQ(index.state.seed, 3u);
  EXPECT_EQ(index.config, "model = transformer\n");
  EXPECT_EQ(index.aliases.at("head.weight"), "embed.tokens.weight");
  const auto same = [](const Tensor& a, const Tensor& b) {
    return std::memcmp(a.view().data, b.view().data, a.view().bytes()) == 0;
  };
  EXPECT_TRUE(same(tiny.store.flat_values(), other.store.flat_values()));
  EXPECT_TRUE(same(optimizer.moments()[0].flat, state.moments()[0].flat));
  EXPECT_TRUE(same(optimizer.moments()[1].flat, state.moments()[1].flat));
  EXPECT_EQ(state.read_state(other.engine.exec).applied, 42);
}

TEST_F(CheckpointTest, AnotherModelsCheckpointNamesTheTensorThatDiffers) {
  const fs::path folder = save(1);
  LmConfig wider = tiny_config();
  wider.d_ff = 64;
  TinyModel other(wider);
  EXPECT_THAT(refusal([&] {
                load(folder, {other.engine.exec, other.store, nullptr});
              }),
              ::testing::AllOf(::testing::HasSubstr("blocks.1.ffn.down.weight"), ::testing::HasSubstr("[32, 128]"),
                               ::testing::HasSubstr("[32, 64]")));
  LmConfig shallow = tiny_config();
  shallow.layers = 1;
  TinyModel less(shallow);
  EXPECT_THAT(refusal([&] {
                load(folder, {less.engine.exec, less.store, nullptr});
              }),
              ::testing::HasSubstr("blocks.1."));
}

TEST_F(CheckpointTest, EveryFlippedOrMissingByteOfTheFilesIsFound) {
  const fs::path folder = save(1);
  std::vector<fs::path> paths;
  for (const auto& entry : fs::directory_iterator(folder)) paths.push_back(entry.path());
  ASSERT_EQ(paths.size(), 2u);
  for (const fs::path& path : paths) {
    const auto size = static_cast<std::int64_t>(fs::file_size(path));
    for (std::int64_t trial = 0; trial < 40; ++trial) {
      const std::int64_t at = trial < 8 ? trial : size * trial / 40 + trial;
      std::fstream file(path, std::ios::in | std::ios::out | std::ios::binary);
      file.seekg(at);
      const int byte = file.get();
      const char flipped = static_cast<char>(byte ^ 0x10);
      // A space for another blank leaves the index's meaning as it was.
      if (path.extension() == ".json" && (byte == ' ' || byte == '\n')) continue;
      file.seekp(at).put(flipped).flush();
      const std::string message = refusal([&] { load(folder, {tiny.engine.exec, tiny.store, &optimizer}); });
      file.seekp(at).put(static_cast<char>(byte)).flush();
      const bool padding = message.empty() && path.extension() == ".safetensors" && byte == ' ';
      EXPECT_TRUE(!message.empty() || padding) << path << " byte " << at;
    }
    const std::string aside = path.string() + ".aside";
    fs::copy_file(path, aside);
    fs::resize_file(path, fs::file_size(path) / 2);
    EXPECT_THAT(refusal([&] {
                  load(folder, {tiny.engine.exec, tiny.store, &optimizer});
                }),
                ::testing::HasSubstr(path.filename().string()));
    fs::remove(path);
    EXPECT_FALSE(refusal([&] { load(folder, {tiny.engine.exec, tiny.store, &optimizer}); }).empty());
    fs::rename(aside, path);
  }
  load(folder, {tiny.engine.exec, tiny.store, &optimizer});
}

TEST_F(CheckpointTest, AnIndexOfValuesInValuesIsRefused) {
  const fs::path folder = save(1);
  test::write_text(folder / "index.json", std::string(200000, '['));
  EXPECT_THAT(refusal([&] {
                load(folder, {tiny.engine.exec, tiny.store, &optimizer});
              }),
              ::testing::HasSubstr("index.json"));
  test::write_text(folder / "index.json", "{\"content\": " + std::string(200000, '[') + std::string(200000, ']') + "}");
  EXPECT_THAT(refusal([&] {
                load(folder, {tiny.engine.exec, tiny.store, &optimizer});
              }),
              ::testing::HasSubstr("nested deeper"));
}

TEST_F(CheckpointTest, AnyNameOfAFolderWillDo) {
  RunState state;
  state.step = 1;
  const fs::path before = fs::current_path();
  fs::current_path(temp.path());
  const auto error = save_checkpoint(*tiny.world, "!x", {tiny.engine.exec, tiny.store, &optimizer}, state, "");
  fs::current_path(before);
  EXPECT_FALSE(error) << *error;
  EXPECT_EQ(list_checkpoints(temp.path() / "!x").size(), 1u);
}

TEST_F(CheckpointTest, AFailedSaveLeavesTheEarlierOnesAndNoRemains) {
  class FullDisk final : public FileSystem {
   public:
    void write(int, const fs::path& path, std::span<const std::byte>) const override {
      throw IoError("write", path, ENOSPC);
    }
  };
  const fs::path good = save(1);
  RunState state;
  state.step = 2;
  const auto error = save_checkpoint(*tiny.world, good.parent_path(), {tiny.engine.exec, tiny.store, &optimizer}, state,
                                     "", FullDisk());
  ASSERT_TRUE(error);
  EXPECT_NE(error->find("No space left"), std::string::npos) << *error;
  EXPECT_EQ(list_checkpoints(good.parent_path()), std::vector<fs::path>{good});
  EXPECT_EQ(std::distance(fs::directory_iterator(good.parent_path()), fs::directory_iterator()), 1);
  load(good, {tiny.engine.exec, tiny.store, &optimizer});
}

/// Syncs of files wait until they may go on.
class HeldDisk final : public FileSystem {
 public:
  void sync(int descriptor, const fs::path& path) const override {
    may_go_on_.wait();
    FileSystem::sync(descriptor, path);
  }
  void let_go() { held_.set_value(); }

 private:
  std::promise<void> held_;
  std::shared_future<void> may_go_on_ = held_.get_future().share();
};

TEST_F(CheckpointTest, ASaveBesideTrainingHoldsWhatWasThereWhenItBegan) {
  const fs::path parent = temp.path() / "checkpoints";
  tiny.engine.kernels.elementwise.fill(tiny.engine.exec, 0.5f, tiny.store.flat_values().mut());
  const auto device = cpu::make_device({});
  SnapshotMemory memory(*device);
  RunState state;
  state.step = 3;
  HeldDisk disk;
  CheckpointSave save(*tiny.world, &memory, parent, {tiny.engine.exec, tiny.store, &optimizer}, state, "", disk);
  EXPECT_TRUE(save.busy());
  tiny.engine.kernels.elementwise.fill(tiny.engine.exec, 0.25f, tiny.store.flat_values().mut());
  EXPECT_TRUE(list_checkpoints(parent).empty()) << "a checkpoint that is not written can be seen";
  disk.let_go();
  EXPECT_FALSE(save.advance()) << "the folder must still appear";
  EXPECT_TRUE(save.advance());
  EXPECT_EQ(save.error(), "");
  const auto found = list_checkpoints(parent);
  ASSERT_EQ(found.size(), 1u);
  load(found.front(), {tiny.engine.exec, tiny.store, &optimizer});
  EXPECT_EQ(tiny.store.flat_values().view().as<float>()[0], 0.5f);
}

TEST_F(CheckpointTest, ASaveThatIsGivenUpLeavesNothing) {
  const fs::path parent = temp.path() / "checkpoints";
  const auto device = cpu::make_device({});
  SnapshotMemory memory(*device);
  {
    const CheckpointSave save(*tiny.world, &memory, parent, {tiny.engine.exec, tiny.store, &optimizer}, RunState{}, "");
  }
  EXPECT_EQ(std::distance(fs::directory_iterator(parent), fs::directory_iterator()), 0);
}

TEST_F(CheckpointTest, AFailureBesideTrainingIsToldAtTheEndAndLeavesNoRemains) {
  class FullDisk final : public FileSystem {
   public:
    void sync(int, const fs::path& path) const override { throw IoError("fsync", path, ENOSPC); }
  };
  const fs::path good = save(1);
  const auto device = cpu::make_device({});
  SnapshotMemory memory(*device);
  const FullDisk disk;
  RunState state;
  state.step = 2;
  CheckpointSave save(*tiny.world, &memory, good.parent_path(), {tiny.engine.exec, tiny.store, &optimizer}, state, "",
                      disk);
  EXPECT_TRUE(save.advance());
  EXPECT_THAT(save.error(), ::testing::HasSubstr("No space left"));
  EXPECT_EQ(list_checkpoints(good.parent_path()), std::vector<fs::path>{good});
  EXPECT_EQ(std::distance(fs::directory_iterator(good.parent_path()), fs::directory_iterator()), 1);
}

TEST_F(CheckpointTest, PruningKeepsTheNewestAndARunFolderStandsForItsLatest) {
  for (const std::int64_t step : {1, 2, 10}) save(step);
  prune_checkpoints(temp.path() / "checkpoints", 2);
  const auto left = list_checkpoints(temp.path() / "checkpoints");
  ASSERT_EQ(left.size(), 2u);
  EXPECT_EQ(left[0].filename(), "step-00000002");
  EXPECT_EQ(find_checkpoint(temp.path()), left[1]);
  EXPECT_THAT(refusal([&] { find_checkpoint(temp.path() / "nowhere"); }), ::testing::HasSubstr("nowhere"));
}

}  // namespace
}  // namespace weft
