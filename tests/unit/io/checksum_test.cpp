#include "core/io/checksum.hpp"

#include <gtest/gtest.h>

#include <string_view>
#include <vector>

namespace weft {
namespace {

std::uint64_t sum(std::string_view text) { return checksum(std::as_bytes(std::span(text.data(), text.size()))); }

TEST(Checksum, HasTheValuesOfTheSpecification) {
  EXPECT_EQ(sum(""), 0xef46db3751d8e999u);
  EXPECT_EQ(sum("a"), 0xd24ec4f1a98c6e5bu);
  EXPECT_EQ(sum("abc"), 0x44bc2cf5ad770999u);
  EXPECT_EQ(sum("The quick brown fox jumps over the lazy dog"), 0x0b242d361fda71bcu);
}

TEST(Checksum, DoesNotDependOnThePieces) {
  std::vector<std::byte> data(777);
  for (std::size_t i = 0; i < data.size(); ++i) data[i] = static_cast<std::byte>(i * 131 + i / 7);
  const std::uint64_t whole = checksum(data);
  for (const std::size_t piece : {1u, 3u, 31u, 32u, 33u, 64u, 500u}) {
    Checksum pieces;
    for (std::size_t begin = 0; begin < data.size(); begin += piece)
      pieces.update(std::span(data).subspan(begin, std::min(piece, data.size() - begin)));
    EXPECT_EQ(pieces.value(), whole) << piece;
  }
}

TEST(Checksum, SeesEverySingleFlippedBit) {
  std::vector<std::byte> data(71, std::byte{0});
  const std::uint64_t whole = checksum(data);
  for (std::size_t bit = 0; bit < data.size() * 8; ++bit) {
    data[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
    EXPECT_NE(checksum(data), whole) << bit;
    data[bit / 8] ^= static_cast<std::byte>(1 << bit % 8);
  }
  EXPECT_EQ(checksum_text(0x12), "0000000000000012");
}

}  // namespace
}  // namespace weft
