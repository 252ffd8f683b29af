#include "core/io/json_lines.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>

#include "core/base/error.hpp"
#include "tests/unit/io/temp_folder.hpp"

namespace weft {
namespace {

using test::TempFolder;

std::vector<int> steps(const std::filesystem::path& path) {
  std::vector<int> found;
  read_json_lines(path, [&](const nlohmann::json& object) { found.push_back(object.at("step").get<int>()); });
  return found;
}

TEST(JsonLines, WhatWasAppendedIsReadBackAlsoByALaterWriter) {
  const TempFolder folder;
  { JsonLinesWriter(folder / "m").append({{"step", 1}, {"loss", 2.5}}); }
  JsonLinesWriter writer(folder / "m");
  writer.append({{"step", 2}});
  EXPECT_EQ(steps(folder / "m"), (std::vector<int>{1, 2})) << "lines are visible without closing";
  writer.sync();
  EXPECT_EQ(test::read_text(folder / "m"), "{\"loss\":2.5,\"step\":1}\n{\"step\":2}\n");
}

TEST(JsonLines, ATornLastLineIsIgnoredByTheReaderAndCutOffByTheWriter) {
  const TempFolder folder;
  test::write_text(folder / "m", "{\"step\":1}\n{\"step\":2}\n{\"ste");
  EXPECT_EQ(steps(folder / "m"), (std::vector<int>{1, 2}));
  JsonLinesWriter(folder / "m").append({{"step", 3}});
  EXPECT_EQ(steps(folder / "m"), (std::vector<int>{1, 2, 3}));
}

TEST(JsonLines, ATornLineLongerThanABlockIsCutOff) {
  const TempFolder folder;
  test::write_text(folder / "m", "{\"step\":1}\n" + std::string(10'000, 'x'));
  JsonLinesWriter(folder / "m").append({{"step", 2}});
  EXPECT_EQ(steps(folder / "m"), (std::vector<int>{1, 2}));
  test::write_text(folder / "n", std::string(10'000, 'x'));
  JsonLinesWriter(folder / "n").append({{"step", 2}});
  EXPECT_EQ(steps(folder / "n"), std::vector<int>{2});
}

TEST(JsonLines, ADamagedLineInTheMiddleIsAnErrorThatNamesIt) {
  const TempFolder folder;
  test::write_text(folder / "m", "{\"step\":1}\n{oops\n{\"step\":3}\n");
  const std::string message = test::user_error([&] { steps(folder / "m"); });
  EXPECT_NE(message.find("line 2"), std::string::npos) << message;
}

TEST(JsonLines, NumbersThatAreNotFiniteBecomeNullAndBadTextStaysReadable) {
  const TempFolder folder;
  JsonLinesWriter(folder / "m")
      .append({{"step", 1}, {"loss", std::numeric_limits<double>::quiet_NaN()}, {"name", "\xff"}});
  read_json_lines(folder / "m", [](const nlohmann::json& object) { EXPECT_TRUE(object.at("loss").is_null()); });
}

TEST(JsonLines, FilterKeepsOnlyAcceptedLines) {
  const TempFolder folder;
  filter_json_lines(folder / "none", [](const nlohmann::json&) { return true; });
  EXPECT_FALSE(std::filesystem::exists(folder / "none"));
  JsonLinesWriter writer(folder / "m");
  for (int step = 1; step <= 5; ++step) writer.append({{"step", step}});
  filter_json_lines(folder / "m", [](const nlohmann::json& object) { return object.at("step").get<int>() <= 3; });
  EXPECT_EQ(steps(folder / "m"), (std::vector<int>{1, 2, 3}));
}

}  // namespace
}  // namespace weft
