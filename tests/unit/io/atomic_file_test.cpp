#include "core/io/atomic_file.hpp"

#include <gtest/gtest.h>
#include <signal.h>
#include <sys/resource.h>

#include <cerrno>
#include <functional>

#include "tests/unit/io/crash_file_system.hpp"
#include "tests/unit/io/temp_folder.hpp"

namespace weft {
namespace {

using test::Crash;
using test::CrashFileSystem;
using test::read_text;
using test::Survives;
using test::TempFolder;

constexpr Survives all_outcomes[] = {Survives::nothing, Survives::everything, Survives::names_only};
const std::string old_text(5000, 'o');
const std::string new_text((3 << 20) + 17, 'n');

bool is_one_of(const std::string* text, const std::string& a, const std::string& b) {
  return text != nullptr && (*text == a || *text == b);
}

const std::string old_checkpoint = "old";
const std::string new_checkpoint = "new";

void save_checkpoint(const std::filesystem::path& path, const std::string& text, const FileSystem& files) {
  AtomicFolder folder(path, files);
  write_file_atomic(folder.path() / "rank-0", text, files);
  write_file_atomic(folder.path() / "rank-1", text, files);
  // A writer that syncs its file alone: the folder's names are the commit's to sync.
  const int index = files.create(folder.path() / "index");
  files.write(index, folder.path() / "index", std::as_bytes(std::span(text.data(), text.size())));
  files.sync(index, folder.path() / "index");
  files.close(index, folder.path() / "index");
  folder.commit();
}

// The content that all files of a checkpoint share; "" when one is missing or differs.
std::string checkpoint_text(const std::filesystem::path& path, const CrashFileSystem& files) {
  const std::string* first = files.content(path / "rank-0");
  for (const char* name : {"rank-0", "rank-1", "index"}) {
    const std::string* content = files.content(path / name);
    if (content == nullptr || *content != *first) return "";
  }
  return *first;
}

// Runs `act` with a crash at every operation in turn and every outcome, then `check(acted)` on the restarted system.
void crash_everywhere(const std::function<void(CrashFileSystem&)>& prepare,
                      const std::function<void(CrashFileSystem&)>& act,
                      const std::function<void(CrashFileSystem&, bool acted)>& check) {
  for (const Survives survives : all_outcomes) {
    bool acted = false;
    for (int operation = 0; !acted; ++operation) {
      CrashFileSystem files;
      prepare(files);
      files.crash_at(operation);
      try {
        act(files);
        acted = files.operations() <= operation;
      } catch (const Crash&) {
      }
      SCOPED_TRACE(fmt::format("crash at operation {}, outcome {}", operation, static_cast<int>(survives)));
      files.restart(survives);
      check(files, acted);
      ASSERT_LT(operation, 200);
    }
  }
}

TEST(AtomicFile, ReplacesContentOnlyOnCommit) {
  const TempFolder folder;
  test::write_text(folder / "a", "old");
  {
    AtomicFile file(folder / "a");
    file.write("new ");
    file.write("content");
    EXPECT_EQ(read_text(folder / "a"), "old");
    file.commit();
  }
  EXPECT_EQ(read_text(folder / "a"), "new content");
  EXPECT_EQ(FileSystem::posix().list(folder.path()), std::vector<std::string>{"a"});
}

TEST(AtomicFile, RewritesAHeaderBehindGatheredWrites) {
  const TempFolder folder;
  AtomicFile file(folder / "a");
  file.write("0000body");
  file.rewrite(1, std::as_bytes(std::span("42", 2)));
  file.write(" end");
  file.commit();
  EXPECT_EQ(read_text(folder / "a"), "0420body end");
}

TEST(AtomicFile, WithoutCommitLeavesNothingBehind) {
  const TempFolder folder;
  { AtomicFile(folder / "a").write("half"); }
  EXPECT_TRUE(FileSystem::posix().list(folder.path()).empty());
}

TEST(AtomicFile, TwoWritersOfOneNameDoNotMix) {
  const TempFolder folder;
  AtomicFile first(folder / "a"), second(folder / "a");
  first.write("first");
  second.write("second");
  first.commit();
  EXPECT_EQ(read_text(folder / "a"), "first");
  second.commit();
  EXPECT_EQ(read_text(folder / "a"), "second");
}

TEST(AtomicFile, CrashAtEveryStepLeavesOldOrNewContentWhole) {
  crash_everywhere([](CrashFileSystem& files) { write_file_atomic("a", old_text, files); },
                   [](CrashFileSystem& files) { write_file_atomic("a", new_text, files); },
                   [](CrashFileSystem& files, bool acted) {
                     EXPECT_TRUE(is_one_of(files.content("a"), acted ? new_text : old_text, new_text));
                     recover_folder("", files);
                     EXPECT_EQ(files.list(""), std::vector<std::string>{"a"});
                   });
}

TEST(AtomicFile, FailureOfEachOperationThrowsItsErrnoAndKeepsTheOldContent) {
  for (const int error_number : {ENOSPC, EDQUOT, EACCES, EIO}) {
    int failures = 0;
    for (int operation = 0;; ++operation) {
      CrashFileSystem files;
      write_file_atomic("a", old_text, files);
      files.fail_at(operation, error_number);
      try {
        write_file_atomic("a", new_text, files);
        break;
      } catch (const IoError& error) {
        ++failures;
        EXPECT_EQ(error.error_number(), error_number);
      }
      EXPECT_TRUE(is_one_of(files.content("a"), old_text, new_text)) << operation;
      EXPECT_EQ(files.list("").size(), 1u) << "a partial file stays after failure " << operation;
      files.fail_at(-1, 0);
      write_file_atomic("a", new_text, files);
      EXPECT_EQ(*files.content("a"), new_text);
    }
    EXPECT_GE(failures, 6) << "create, writes, sync, close, rename, sync of the folder";
  }
}

TEST(AtomicFile, FullDiskIsAnIoErrorAndTheOldContentStays) {
  const TempFolder folder;
  test::write_text(folder / "a", "old");
  rlimit before{};
  ASSERT_EQ(::getrlimit(RLIMIT_FSIZE, &before), 0);
  const auto handler = ::signal(SIGXFSZ, SIG_IGN);
  rlimit small = before;
  small.rlim_cur = 100'000;
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &small), 0);
  int found = 0;
  try {
    write_file_atomic(folder / "a", new_text);
  } catch (const IoError& error) {
    found = error.error_number();
  }
  ASSERT_EQ(::setrlimit(RLIMIT_FSIZE, &before), 0);
  ::signal(SIGXFSZ, handler);
  EXPECT_EQ(found, EFBIG);
  EXPECT_EQ(read_text(folder / "a"), "old");
  EXPECT_EQ(FileSystem::posix().list(folder.path()).size(), 1u);
}

TEST(AtomicFile, MissingFolderIsAnIoErrorThatNamesThePath) {
  const TempFolder folder;
  try {
    write_file_atomic(folder / "none/a", "x");
    FAIL();
  } catch (const IoError& error) {
    EXPECT_EQ(error.error_number(), ENOENT);
    EXPECT_NE(std::string(error.what()).find("none/a"), std::string::npos) << error.what();
  }
}

TEST(AtomicFolder, CrashAtEveryStepOfANewCheckpointKeepsTheOlderOneAndShowsNoHalf) {
  crash_everywhere([](CrashFileSystem& files) { save_checkpoint("step-1", old_checkpoint, files); },
                   [](CrashFileSystem& files) { save_checkpoint("step-2", new_checkpoint, files); },
                   [](CrashFileSystem& files, bool acted) {
                     const auto found = list_complete("", "step-", files);
                     EXPECT_EQ(checkpoint_text("step-1", files), old_checkpoint);
                     for (const auto& path : found) EXPECT_NE(checkpoint_text(path, files), "") << path;
                     if (acted) {
                       EXPECT_EQ(found.size(), 2u);
                     }
                     recover_folder("", files);
                     EXPECT_EQ(list_complete("", "step-", files), found);
                     EXPECT_EQ(files.list("").size(), found.size()) << "partial folders stay";
                   });
}

TEST(AtomicFolder, CrashAtEveryStepOfAReplacementLeavesOldOrNewWhole) {
  for (const bool can_exchange : {true, false}) {
    SCOPED_TRACE(can_exchange);
    crash_everywhere(
        [&](CrashFileSystem& files) {
          files.can_exchange = can_exchange;
          save_checkpoint("step-1", old_checkpoint, files);
        },
        [](CrashFileSystem& files) { save_checkpoint("step-1", new_checkpoint, files); },
        [](CrashFileSystem& files, bool acted) {
          recover_folder("", files);
          const std::string text = checkpoint_text("step-1", files);
          EXPECT_TRUE(text == new_checkpoint || (!acted && text == old_checkpoint));
          EXPECT_EQ(files.list(""), std::vector<std::string>{"step-1"});
        });
  }
}

TEST(AtomicFolder, CrashWhileRecoveringLosesNothing) {
  crash_everywhere(
      [](CrashFileSystem& files) {
        files.can_exchange = false;
        save_checkpoint("step-1", old_checkpoint, files);
        // The old folder is aside, the new one not yet in place.
        files.rename("step-1", "step-1.replaced-7-0");
        files.sync_folder("");
      },
      [](CrashFileSystem& files) { recover_folder("", files); },
      [](CrashFileSystem& files, bool) {
        recover_folder("", files);
        EXPECT_EQ(checkpoint_text("step-1", files), old_checkpoint);
      });
}

TEST(AtomicFolder, CrashAtEveryStepOfARemovalShowsNoHalfFolder) {
  crash_everywhere(
      [](CrashFileSystem& files) {
        save_checkpoint("step-1", old_checkpoint, files);
        save_checkpoint("step-2", old_checkpoint, files);
      },
      [](CrashFileSystem& files) { remove_folder_atomic("step-1", files); },
      [](CrashFileSystem& files, bool acted) {
        for (const auto& path : list_complete("", "step-", files))
          EXPECT_EQ(checkpoint_text(path, files), old_checkpoint);
        EXPECT_EQ(checkpoint_text("step-2", files), old_checkpoint);
        if (acted) {
          EXPECT_FALSE(files.exists("step-1"));
        }
      });
}

TEST(AtomicFolder, FailureOfEachOperationKeepsTheOldFolder) {
  for (const bool can_exchange : {true, false}) {
    bool saved = false;
    for (int operation = 0; !saved; ++operation) {
      SCOPED_TRACE(fmt::format("operation {}, exchange {}", operation, can_exchange));
      CrashFileSystem files;
      files.can_exchange = can_exchange;
      save_checkpoint("step-1", old_checkpoint, files);
      files.fail_at(operation, ENOSPC);
      try {
        save_checkpoint("step-1", new_checkpoint, files);
        saved = files.operations() <= operation;
      } catch (const IoError& error) {
        EXPECT_EQ(error.error_number(), ENOSPC);
      }
      files.fail_at(-1, 0);
      const std::string text = checkpoint_text("step-1", files);
      EXPECT_TRUE(text == old_checkpoint || text == new_checkpoint);
      EXPECT_EQ(list_complete("", "step-", files).size(), 1u);
      ASSERT_LT(operation, 200);
    }
  }
}

TEST(AtomicFolder, OnDiskReplacesAndRemoves) {
  const TempFolder folder;
  save_checkpoint(folder / "step-1", "old", FileSystem::posix());
  save_checkpoint(folder / "step-1/", "new", FileSystem::posix());
  EXPECT_EQ(read_text(folder / "step-1/rank-1"), "new");
  std::filesystem::create_directory(folder / "step-9.partial-1-0");
  EXPECT_EQ(list_complete(folder.path(), "step-"), std::vector<std::filesystem::path>{folder / "step-1"});
  recover_folder(folder.path());
  EXPECT_FALSE(std::filesystem::exists(folder / "step-9.partial-1-0"));
  remove_folder_atomic(folder / "step-1");
  EXPECT_TRUE(FileSystem::posix().list(folder.path()).empty());
}

TEST(OutputFolder, RefusesAFileOfThatNameInOneLine) {
  const TempFolder folder;
  make_output_folder(folder / "a/b", "--out");
  EXPECT_TRUE(std::filesystem::is_directory(folder / "a/b"));
  test::write_text(folder / "file", "x");
  for (const char* name : {"file", "file/below"}) {
    const std::string message = test::user_error([&] { make_output_folder(folder / name, "--out"); });
    EXPECT_NE(message.find("--out"), std::string::npos) << message;
    EXPECT_NE(message.find(name), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos);
  }
}

}  // namespace
}  // namespace weft
