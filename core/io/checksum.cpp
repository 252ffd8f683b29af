#include "core/io/checksum.hpp"

#include <fmt/core.h>

#include <algorithm>
#include <bit>
#include <cstring>

namespace weft {
namespace {

static_assert(std::endian::native == std::endian::little, "the formats here are little-endian");

constexpr std::uint64_t prime1 = 0x9E3779B185EBCA87ull;
constexpr std::uint64_t prime2 = 0xC2B2AE3D27D4EB4Full;
constexpr std::uint64_t prime3 = 0x165667B19E3779F9ull;
constexpr std::uint64_t prime4 = 0x85EBCA77C2B2AE63ull;
constexpr std::uint64_t prime5 = 0x27D4EB2F165667C5ull;

template <class Word>
std::uint64_t load(const std::byte* data) {
  Word word;
  std::memcpy(&word, data, sizeof(word));
  return word;
}

std::uint64_t round(std::uint64_t lane, std::uint64_t word) { return std::rotl(lane + word * prime2, 31) * prime1; }

void take_stripe(std::array<std::uint64_t, 4>& lanes, const std::byte* stripe) {
  for (std::size_t lane = 0; lane < 4; ++lane) lanes[lane] = round(lanes[lane], load<std::uint64_t>(stripe + 8 * lane));
}

}  // namespace

Checksum::Checksum(std::uint64_t seed)
    : lanes_{seed + prime1 + prime2, seed + prime2, seed, seed - prime1}, seed_(seed) {}

void Checksum::update(std::span<const std::byte> bytes) {
  const std::size_t held = total_ % 32;
  total_ += bytes.size();
  if (held > 0) {
    const std::size_t taken = std::min(bytes.size(), 32 - held);
    std::copy_n(bytes.begin(), taken, tail_.begin() + static_cast<std::ptrdiff_t>(held));
    bytes = bytes.subspan(taken);
    if (held + taken < 32) return;
    take_stripe(lanes_, tail_.data());
  }
  auto lanes = lanes_;
  for (; bytes.size() >= 32; bytes = bytes.subspan(32)) take_stripe(lanes, bytes.data());
  lanes_ = lanes;
  std::copy(bytes.begin(), bytes.end(), tail_.begin());
}

std::uint64_t Checksum::value() const {
  std::uint64_t hash = seed_ + prime5;
  if (total_ >= 32) {
    hash = std::rotl(lanes_[0], 1) + std::rotl(lanes_[1], 7) + std::rotl(lanes_[2], 12) + std::rotl(lanes_[3], 18);
    for (const std::uint64_t lane : lanes_) hash = (hash ^ round(0, lane)) * prime1 + prime4;
  }
  hash += total_;
  const std::byte* data = tail_.data();
  std::size_t left = total_ % 32;
  for (; left >= 8; left -= 8, data += 8)
    hash = std::rotl(hash ^ round(0, load<std::uint64_t>(data)), 27) * prime1 + prime4;
  for (; left >= 4; left -= 4, data += 4)
    hash = std::rotl(hash ^ (load<std::uint32_t>(data) * prime1), 23) * prime2 + prime3;
  for (; left > 0; --left, ++data) hash = std::rotl(hash ^ (load<std::uint8_t>(data) * prime5), 11) * prime1;
  hash = (hash ^ (hash >> 33)) * prime2;
  hash = (hash ^ (hash >> 29)) * prime3;
  return hash ^ (hash >> 32);
}

std::uint64_t checksum(std::span<const std::byte> bytes) {
  Checksum sum;
  sum.update(bytes);
  return sum.value();
}

std::string checksum_text(std::uint64_t value) { return fmt::format("{:016x}", value); }

}  // namespace weft
