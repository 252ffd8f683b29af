#include "core/data/header_corpus.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "core/base/error.hpp"
#include "tests/unit/io/temp_folder.hpp"

namespace weft {
namespace {

using test::TempFolder;

const std::string licence = "// This file is free software, as everybody knows.\n";

std::string body(int file, int first, int last) {
  std::string text = licence;
  for (int line = first; line < last; ++line) text += fmt::format("void function_{}_of_file_{}();\n", line, file);
  return text;
}

void make_headers(const std::filesystem::path& folder, int count) {
  std::filesystem::create_directories(folder / "bits");
  for (int file = 0; file < count; ++file)
    test::write_text(folder / (file % 2 == 0 ? "bits" : ".") / fmt::format("h{}.h", file), body(file, 0, 40));
}

std::set<std::string> names(const std::vector<std::filesystem::path>& paths) {
  std::set<std::string> found;
  for (const auto& path : paths) found.insert(path.filename().string());
  return found;
}

TEST(HeaderCorpus, HoldsWholeFilesOutAndLosesNone) {
  const TempFolder folder;
  make_headers(folder.path(), 200);
  const HeaderCorpus corpus = collect_headers({folder.path()}, {.valid_fraction = 0.1});
  EXPECT_EQ(corpus.train_files.size() + corpus.valid_files.size(), 200u);
  EXPECT_GT(corpus.valid_files.size(), 8u);
  EXPECT_LT(corpus.valid_files.size(), 40u);
  std::string train, valid;
  for (const auto& path : corpus.train_files) train += test::read_text(path);
  for (const auto& path : corpus.valid_files) valid += test::read_text(path);
  EXPECT_EQ(corpus.train, train);
  EXPECT_EQ(corpus.valid, valid);
}

TEST(HeaderCorpus, TheChoiceDependsOnNamesNotOnWhereTheFolderIs) {
  const TempFolder a, b;
  make_headers(a.path(), 100);
  make_headers(b.path(), 100);
  const HeaderCorpus from_a = collect_headers({a.path(), a / "missing"}), from_b = collect_headers({b.path()});
  EXPECT_EQ(from_a.train, from_b.train);
  EXPECT_EQ(from_a.valid, from_b.valid);
  EXPECT_FALSE(from_a.valid.empty());
}

TEST(HeaderCorpus, ACopyIsTakenOnceAndANearCopyNeverStandsOnBothSides) {
  const TempFolder folder;
  make_headers(folder.path(), 100);
  std::filesystem::create_directories(folder / "backward");
  for (int file = 0; file < 100; ++file) {
    test::write_text(folder / "backward" / fmt::format("same{}.h", file), body(file, 0, 40));
    // 30 of 40 lines of the original, 10 of its own.
    test::write_text(folder / "backward" / fmt::format("near{}.h", file), body(file, 10, 50));
  }
  test::write_text(folder / "binary.h", std::string("a\0b", 3));
  const HeaderCorpus corpus = collect_headers({folder.path(), folder.path()}, {.valid_fraction = 0.3});
  EXPECT_EQ(corpus.train_files.size() + corpus.valid_files.size(), 200u);
  const std::set<std::string> train = names(corpus.train_files), valid = names(corpus.valid_files);
  EXPECT_EQ(train.count("binary.h") + valid.count("binary.h"), 0u);
  int pairs_held_out = 0;
  for (int file = 0; file < 100; ++file) {
    const bool original = valid.count(fmt::format("h{}.h", file)) + valid.count(fmt::format("same{}.h", file)) > 0;
    const bool near = valid.count(fmt::format("near{}.h", file)) > 0;
    EXPECT_EQ(original, near) << file;
    pairs_held_out += original;
  }
  EXPECT_GT(pairs_held_out, 0) << "pairs that the hash puts on one side stay held out";
}

TEST(HeaderCorpus, AChainOfNearCopiesWithOneTrainingFileIsTrainedOnWhole) {
  const TempFolder folder;
  // Each shares 25 of its 40 lines with the next, and fewer than half with the one after. The names' order is not the
  // chain's, so one pass over the files is not enough.
  for (int file = 0; file < 60; ++file)
    test::write_text(folder / fmt::format("h{}.h", 37 * file % 60), body(0, 15 * file, 15 * file + 40));
  const HeaderCorpus corpus = collect_headers({folder.path()}, {.valid_fraction = 0.7});
  EXPECT_EQ(corpus.train_files.size(), 60u);
  EXPECT_TRUE(corpus.valid.empty());
}

TEST(HeaderCorpus, NothingFoundIsAnErrorThatNamesTheFolder) {
  const TempFolder folder;
  EXPECT_NE(test::user_error([&] { collect_headers({folder / "none"}); }).find("none"), std::string::npos);
}

TEST(HeaderCorpus, FindsTheNewestStandardLibrary) {
  const TempFolder folder;
  for (const char* name : {"c++/9", "c++/12", "c++/11", "x86_64-linux-gnu/c++/12", "x86_64-linux-gnu/sys"})
    std::filesystem::create_directories(folder / name);
  EXPECT_EQ(standard_header_folders(folder.path()),
            (std::vector<std::filesystem::path>{folder / "c++/12", folder / "x86_64-linux-gnu/c++/12"}));
  EXPECT_TRUE(standard_header_folders(folder / "none").empty());
}

TEST(HeaderCorpus, TheLibraryOfThisCompilerServes) {
  const HeaderCorpus corpus = collect_headers(standard_header_folders());
  const double part =
      static_cast<double>(corpus.valid.size()) / static_cast<double>(corpus.valid.size() + corpus.train.size());
  EXPECT_GT(corpus.train.size(), 4'000'000u);
  EXPECT_GT(part, 0.02);
  EXPECT_LT(part, 0.12);
  RecordProperty("valid_part", fmt::format("{:.4f}", part));
}

}  // namespace
}  // namespace weft
