// The header of llm.c's token files (https://github.com/karpathy/llm.c, dev/data/data_common.py): 256 int32 words.
#pragma once
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "core/data/token_file.hpp"

namespace weft::detail {

inline constexpr std::size_t llmc_header_bytes = 1024;

struct LlmcHeader {
  bool present = false;
  TokenFormat format = TokenFormat::u16;
  /// Word 2; where a count needs more than 31 bits, llm.c has no form for it, and word 3 holds the upper half.
  std::int64_t tokens = 0;
};

/// Not present where the magic is another. Throws UserError on a known magic with a wrong version or a cut-off header.
LlmcHeader parse_llmc_header(const std::string& file, std::span<const std::byte> bytes);
std::array<std::int32_t, 256> make_llmc_header(TokenFormat format, std::int64_t tokens);

}  // namespace weft::detail
