// Tables of matrix products' algorithms as text.
#include "core/kernels/product_table.hpp"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>

#include "core/base/error.hpp"

namespace weft {
namespace {

using testing::HasSubstr;

ProductTable example() {
  ProductTable table{"NVIDIA H200, sm_90", 130002, {}};
  table.choices[{16384, 2304, 768, 768, 768, 2304, 2304, 0, 9437184}] = {2, 103.5, 110.2};
  table.choices[{1, 1, 1, 1, 1, 1, 1, 0, -5}] = {0, 3, 3};
  return table;
}

std::string error_of(const std::string& text) {
  try {
    parse_product_table(text);
  } catch (const Error& error) {
    return error.what();
  }
  return {};
}

TEST(ProductTable, ComesBackFromItsText) {
  EXPECT_EQ(parse_product_table(format_product_table(example())), example());
  EXPECT_EQ(parse_product_table(format_product_table({"x", 1, {}})), (ProductTable{"x", 1, {}}));
}

TEST(ProductTable, AWrongLineIsNamedWithWhatWasFoundAndWhatIsRight) {
  const std::string good = format_product_table(example());
  const auto with = [&](const std::string& from, const std::string& to) {
    std::string text = good;
    return text.replace(text.find(from), from.size(), to);
  };
  EXPECT_THAT(error_of(""), HasSubstr("line 1: found ``, expected `weft product table 1`"));
  EXPECT_THAT(error_of("{}\n"), HasSubstr("line 1: found `{}`"));
  EXPECT_THAT(error_of(with("device NVIDIA", "gpu NVIDIA")), HasSubstr("line 2: found `gpu NVIDIA H200, sm_90`"));
  EXPECT_THAT(error_of(with("130002", "13.0.2")), HasSubstr("line 3: found `13.0.2`, expected a version number"));
  EXPECT_THAT(error_of(with("m n k", "k m n")), HasSubstr("line 4"));
  EXPECT_THAT(error_of(with("16384", "x")), HasSubstr("line 6: found `x 2304 768"));
  EXPECT_THAT(error_of(with("110.2", "")), HasSubstr("line 6"));
  EXPECT_THAT(error_of(with("110.2", "110.2 7")), HasSubstr("line 6"));
  EXPECT_THAT(error_of(with("  2  103.5", "  -2  103.5")), HasSubstr("line 6"));
  EXPECT_THAT(error_of(good + good.substr(good.rfind('\n', good.size() - 2) + 1)),
              HasSubstr("line 7: found `16384 2304 768"));
}

TEST(ProductTable, NoChangeOfItsTextDoesMoreThanAnError) {
  const std::string good = format_product_table(example());
  std::mt19937 random(7);
  int refused = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string text = good;
    for (int changes = 1 + static_cast<int>(random() % 3); changes > 0 && !text.empty(); --changes) {
      const std::size_t at = random() % text.size();
      if (random() % 2 == 0)
        text[at] = static_cast<char>(random());
      else
        text.erase(at, random() % 40);
    }
    try {
      const ProductTable table = parse_product_table(text);
      EXPECT_EQ(parse_product_table(format_product_table(table)).choices.size(), table.choices.size());
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 10000);
}

TEST(ProductTable, ManyAreMergedAndTheFirstWins) {
  ProductTable other = example();
  other.choices.begin()->second.algorithm = 5;
  other.choices[{2, 2, 2, 2, 2, 2, 2, 0, 0}] = {1, 1, 2};
  const ProductTable merged = merge_product_tables({example(), other});
  EXPECT_EQ(merged.choices.size(), 3u);
  EXPECT_EQ(merged.choices.begin()->second, example().choices.begin()->second);
  other.library = 120000;
  EXPECT_THROW(merge_product_tables({example(), other}), Error);
}

}  // namespace
}  // namespace weft
