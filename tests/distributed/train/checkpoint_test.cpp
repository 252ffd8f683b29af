// Ranks whose hosts see different states of one shared file system load one and the same checkpoint, or all refuse it.
#include <gmock/gmock.h>

#include <filesystem>
#include <thread>

#include "core/cpu/device.hpp"
#include "parallel/checkpoint_save.hpp"
#include "parallel/comm/text_exchange.hpp"
#include "tests/distributed/mpi_test.hpp"
#include "tests/unit/io/temp_folder.hpp"
#include "tests/unit/models/tiny_model.hpp"

namespace weft::test {
namespace {

namespace fs = std::filesystem;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

class SharedCheckpoint : public testing::Test {
 protected:
  SharedCheckpoint() {
    if (world().rank() == 0) own_.emplace();
    shared_ = from_first_rank(world(), [&] { return own_->path().string(); });
  }
  // Nobody removes what others still read.
  ~SharedCheckpoint() override { world().barrier().wait(); }

  /// Every value is `value`, every rank saves its share.
  fs::path save(std::int64_t step, float value) {
    fill(value);
    RunState state;
    state.step = state.applied = step;
    const auto error = save_checkpoint(world(), shared_, {tiny.engine.exec, tiny.store, &optimizer}, state, "");
    EXPECT_FALSE(error) << *error;
    return shared_ / fmt::format("step-{:08}", step);
  }
  void fill(float value) {
    tiny.engine.kernels.elementwise.fill(tiny.engine.exec, value, tiny.store.flat_values().mut());
  }

  /// This rank's own view: a copy of `folder`.
  fs::path view_of(const fs::path& folder) {
    const fs::path copy = shared_ / fmt::format("view-{}", world().rank());
    fs::copy(folder, copy);
    return copy;
  }
  CheckpointIndex load(const fs::path& folder) {
    CheckpointIndex index = read_index(world(), folder);
    load_checkpoint(world(), index, folder, {tiny.engine.exec, tiny.store, &optimizer});
    return index;
  }
  bool last() const { return world().rank() == world().size() - 1; }

  std::optional<TempFolder> own_;
  fs::path shared_;
  TinyModel tiny{tiny_config()};
  Optimizer optimizer{AdamWSpec{}, tiny.store, tiny.engine.exec};
};

TEST_F(SharedCheckpoint, ThatOneRankWritesSlowlyAppearsWhenAllHaveWritten) {
  class Disk final : public FileSystem {
   public:
    explicit Disk(bool full) : full_(full) {}
    void sync(int descriptor, const fs::path& path) const override {
      // The others have long written when this one may.
      if (last_) world().recv(MutView(&word_, {1}, DType::u8), 0).wait();
      if (full_) throw IoError("fsync", path, ENOSPC);
      FileSystem::sync(descriptor, path);
    }

   private:
    bool full_;
    bool last_ = world().rank() == world().size() - 1;
    mutable char word_ = 0;
  };
  const auto device = cpu::make_device({});
  SnapshotMemory memory(*device);
  for (const bool full : {false, true}) {
    fill(full ? 0.75f : 0.5f);
    RunState state;
    state.step = state.applied = full ? 2 : 1;
    const Disk disk(full && last());
    CheckpointSave save(world(), &memory, shared_, {tiny.engine.exec, tiny.store, &optimizer}, state, "", disk);
    fill(0.25f);
    if (world().rank() == 0) {
      while (save.busy()) std::this_thread::yield();
      EXPECT_EQ(list_checkpoints(shared_).size(), full ? 1u : 0u);
      const char word = 1;
      world().send(View(&word, {1}, DType::u8), world().size() - 1).wait();
    }
    while (save.busy()) std::this_thread::yield();
    while (!save.advance()) {
    }
    EXPECT_EQ(save.error().find("No space left") != std::string::npos, full) << save.error();
    EXPECT_EQ(save.error().empty(), !full);
  }
  world().barrier().wait();
  const auto found = list_checkpoints(shared_);
  ASSERT_EQ(found.size(), 1u) << "of the save that failed on one rank";
  load(found.front());
  EXPECT_EQ(tiny.store.flat_values().view().as<float>()[0], 0.5f);
}

TEST_F(SharedCheckpoint, OfAnotherIndexOnOneHostIsThatOfTheFirstRank) {
  const fs::path older = save(1, 0.5f), newer = save(2, 0.25f);
  const fs::path view = view_of(newer);
  if (last()) fs::copy_file(older / "index.json", view / "index.json", fs::copy_options::overwrite_existing);
  fill(0);
  const CheckpointIndex index = load(view);
  EXPECT_EQ(index.state.step, 2);
  EXPECT_EQ(optimizer.read_state(tiny.engine.exec).applied, 2);
  EXPECT_EQ(tiny.store.flat_values().view().as<float>()[0], 0.25f);
}

TEST_F(SharedCheckpoint, WhoseTensorsAreOlderOnOneHostIsRefusedByAll) {
  const fs::path older = save(1, 0.5f), newer = save(2, 0.25f);
  const fs::path view = view_of(last() ? older : newer);
  const std::string message = user_error([&] { load(view); });
  EXPECT_THAT(message, AllOf(StartsWith(fmt::format("rank {}: ", world().size() - 1)), HasSubstr("is damaged")));
}

TEST_F(SharedCheckpoint, WithoutAFileOnOneHostIsRefusedByAll) {
  const fs::path view = view_of(save(1, 0.5f));
  const std::string file = fmt::format("shard-00000-of-{:05}.safetensors", world().size());
  if (last()) fs::remove(view / file);
  EXPECT_THAT(user_error([&] { load(view); }),
              AllOf(StartsWith(fmt::format("rank {}: ", world().size() - 1)), HasSubstr(file + ": missing")));
}

TEST_F(SharedCheckpoint, ThatIsDamagedForAllIsSaidWithoutARank) {
  const fs::path folder = save(1, 0.5f);
  if (world().rank() == 0) fs::remove(folder / fmt::format("shard-00000-of-{:05}.safetensors", world().size()));
  world().barrier().wait();
  EXPECT_THAT(user_error([&] { load(folder); }), StartsWith(folder.string()));
}

TEST_F(SharedCheckpoint, WithoutAnIndexOnTheFirstHostIsRefusedByAll) {
  const fs::path view = view_of(save(1, 0.5f));
  if (world().rank() == 0) fs::remove(view / "index.json");
  EXPECT_THAT(user_error([&] { load(view); }), HasSubstr("view-0/index.json"));
}

}  // namespace
}  // namespace weft::test
