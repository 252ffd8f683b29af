// A process that dies at any moment of a save leaves only checkpoints that can be read, the last one among them.
#include <gtest/gtest.h>

#include <cerrno>

#include "core/io/atomic_file.hpp"
#include "parallel/checkpoint.hpp"
#include "tests/unit/io/temp_folder.hpp"
#include "tests/unit/models/tiny_model.hpp"

namespace weft {
namespace {

namespace fs = std::filesystem;

enum class Exchange { supported, missing };

// From operation `last` on nothing reaches the disk any more; that operation itself happens by half.
class DyingProcess final : public FileSystem {
 public:
  DyingProcess(int last, Exchange exchange) : last_(last), exchange_(exchange) {}

  bool died() const { return count_ > last_; }

  int create(const fs::path& path) const override {
    live(path);
    return FileSystem::create(path);
  }
  void write(int descriptor, const fs::path& path, std::span<const std::byte> bytes) const override {
    if (count_ == last_) FileSystem::write(descriptor, path, bytes.first(bytes.size() / 2));
    live(path);
    FileSystem::write(descriptor, path, bytes);
  }
  void write_at(int descriptor, const fs::path& path, std::int64_t offset,
                std::span<const std::byte> bytes) const override {
    if (count_ == last_) FileSystem::write_at(descriptor, path, offset, bytes.first(bytes.size() / 2));
    live(path);
    FileSystem::write_at(descriptor, path, offset, bytes);
  }
  void rename(const fs::path& from, const fs::path& to) const override {
    live(from);
    FileSystem::rename(from, to);
  }
  bool exchange(const fs::path& a, const fs::path& b) const override {
    if (exchange_ == Exchange::missing) return false;
    live(a);
    return FileSystem::exchange(a, b);
  }
  void sync(int, const fs::path& path) const override { live(path); }
  void sync_folder(const fs::path& folder) const override { live(folder); }
  void make_folder(const fs::path& folder) const override {
    live(folder);
    FileSystem::make_folder(folder);
  }
  void remove(const fs::path& path) const override {
    live(path);
    FileSystem::remove(path);
  }

 private:
  void live(const fs::path& path) const {
    if (count_++ >= last_) throw IoError("use", path, EIO);
  }

  int last_;
  Exchange exchange_;
  mutable int count_ = 0;
};

class DyingSave : public ::testing::TestWithParam<std::tuple<std::int64_t, Exchange>> {
 protected:
  TinyModel tiny{tiny_config()};
  Optimizer optimizer{AdamWSpec{}, tiny.store, tiny.engine.exec};

  void set_values(float value) {
    float* data = tiny.store.flat_values().mut().as<float>();
    std::fill_n(data, tiny.store.flat_values().numel(), value);
  }
  std::optional<std::string> save(const fs::path& parent, std::int64_t step, float value, const FileSystem& files) {
    set_values(value);
    RunState state;
    state.step = step;
    state.tokens = static_cast<std::int64_t>(value);
    return save_checkpoint(*tiny.world, parent, {tiny.engine.exec, tiny.store, &optimizer}, state, "", files);
  }
};

TEST_P(DyingSave, LeavesTheOldOrTheNewCheckpointWhole) {
  const auto [step, exchange] = GetParam();
  constexpr float before = 100, after = 200;
  constexpr int most = 100;
  bool finished = false;
  int deaths = 0;
  for (int last = 0; !finished; ++last) {
    ASSERT_LT(last, most);
    SCOPED_TRACE(last);
    const test::TempFolder temp;
    ASSERT_FALSE(save(temp.path(), 1, before, FileSystem::posix()));
    const DyingProcess files(last, exchange);
    const auto error = save(temp.path(), step, after, files);
    finished = !files.died();
    deaths += !finished;
    if (finished) {
      EXPECT_FALSE(error) << *error;
    }

    recover_folder(temp.path());
    const std::vector<fs::path> left = list_checkpoints(temp.path());
    ASSERT_FALSE(left.empty());
    for (const fs::path& folder : left) {
      set_values(0);
      const CheckpointIndex index = read_index(*tiny.world, folder);
      load_checkpoint(*tiny.world, index, folder, {tiny.engine.exec, tiny.store, &optimizer});
      const float value = tiny.store.flat_values().view().as<float>()[0];
      EXPECT_EQ(static_cast<float>(index.state.tokens), value);
      EXPECT_TRUE(value == before || value == after);
      if (finished && folder == left.back()) {
        EXPECT_EQ(value, after);
      }
    }
    // Nothing else is left of it.
    EXPECT_EQ(std::distance(fs::directory_iterator(temp.path()), fs::directory_iterator()),
              static_cast<std::ptrdiff_t>(left.size()));
  }
  EXPECT_GT(deaths, 10);
}

INSTANTIATE_TEST_SUITE_P(Table, DyingSave,
                         ::testing::Combine(::testing::Values(1, 2),
                                            ::testing::Values(Exchange::supported, Exchange::missing)),
                         [](const auto& row) {
                           return std::string(std::get<0>(row.param) == 1 ? "OfTheSameStep" : "OfALaterStep") +
                                  (std::get<1>(row.param) == Exchange::supported ? "" : "WithoutExchange");
                         });

}  // namespace
}  // namespace weft
