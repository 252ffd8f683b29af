// Which algorithm of a library to take for each matrix product, as measured on one kind of device: a text file.
//
//   weft product table 1
//   device NVIDIA H200, sm_90
//   library 130002
//   m n k  a b added out pre  flags  algorithm  us  us-of-first
//   16384 2304 768  768 768 2304 2304 0  9437184  2  103.1  110.2
#pragma once
#include <array>
#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace weft {

/// All that a library's choice depends on: sizes, strides, and flags of types, epilogue and alignments.
using ProductKey = std::array<std::int64_t, 9>;

struct ProductChoice {
  int algorithm = 0;    ///< which of those that the library proposes
  double us = 0;        ///< measured
  double first_us = 0;  ///< of the first proposal, which is taken without a table
  bool operator==(const ProductChoice&) const = default;
};

struct ProductTable {
  std::string device;         ///< DeviceFacts::name
  std::uint64_t library = 0;  ///< its version number
  std::map<ProductKey, ProductChoice> choices;
  bool operator==(const ProductTable&) const = default;
};

std::string format_product_table(const ProductTable& table);
/// Throws Error that names the line, what was found and what would be right.
ProductTable parse_product_table(std::string_view text);

/// The choices of all tables, of the first for products that several have. Throws Error for different devices or libraries.
ProductTable merge_product_tables(const std::vector<ProductTable>& tables);

}  // namespace weft
