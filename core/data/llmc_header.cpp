#include "core/data/llmc_header.hpp"

#include <bit>
#include <cstring>

#include "core/base/error.hpp"

namespace weft::detail {
namespace {

static_assert(std::endian::native == std::endian::little, "token files are little-endian");

constexpr std::int32_t u16_magic = 20240520, u16_version = 1;
constexpr std::int32_t u32_magic = 20240801, u32_version = 7;

}  // namespace

LlmcHeader parse_llmc_header(const std::string& file, std::span<const std::byte> bytes) {
  std::array<std::uint32_t, 4> words{};
  if (bytes.size() < sizeof(words)) return {};
  std::memcpy(words.data(), bytes.data(), sizeof(words));
  const auto magic = static_cast<std::int32_t>(words[0]);
  if (magic != u16_magic && magic != u32_magic) return {};
  const std::int32_t version = magic == u16_magic ? u16_version : u32_version;
  if (static_cast<std::int32_t>(words[1]) != version)
    fail_user("file '{}': token header of version {}; only version {} is known for magic {}", file,
              static_cast<std::int32_t>(words[1]), version, magic);
  if (bytes.size() < llmc_header_bytes)
    fail_user("file '{}': {} bytes, but a token header takes {}: the file is cut short", file, bytes.size(),
              llmc_header_bytes);
  const std::uint64_t tokens = (std::uint64_t{words[3]} << 32) | words[2];
  if (tokens > (std::uint64_t{1} << 61))
    fail_user("file '{}': the token header's count {} is not possible", file, tokens);
  return {true, magic == u16_magic ? TokenFormat::u16 : TokenFormat::u32, static_cast<std::int64_t>(tokens)};
}

std::array<std::int32_t, 256> make_llmc_header(TokenFormat format, std::int64_t tokens) {
  std::array<std::int32_t, 256> header{};
  header[0] = format == TokenFormat::u16 ? u16_magic : u32_magic;
  header[1] = format == TokenFormat::u16 ? u16_version : u32_version;
  header[2] = static_cast<std::int32_t>(static_cast<std::uint32_t>(tokens));
  header[3] = static_cast<std::int32_t>(tokens >> 32);
  return header;
}

}  // namespace weft::detail
