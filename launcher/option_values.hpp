// Reading one option's value from text and writing it back, with words for what would be right.
#pragma once
#include <cstdint>
#include <span>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace weft {

/// A value's text is not what the option takes; `expected` says what is ("a whole number of at least 1").
struct BadValue : std::runtime_error {
  explicit BadValue(const std::string& expected) : std::runtime_error(expected) {}
};

struct IntegerRange {
  std::int64_t least = 0;
  std::int64_t most = INT64_MAX;
};

/// Bounds of a real option; an open bound is itself not allowed.
struct RealRange {
  double least = 0;
  double most = 1e300;
  enum class Bounds : std::uint8_t { closed, open_above, open_below } bounds = Bounds::closed;
};

std::int64_t read_integer(std::string_view text, IntegerRange range);
double read_real(std::string_view text, RealRange range);
bool read_yes_no(std::string_view text);
bool is_yes_no(std::string_view text);

/// "90", "90s", "15m", "1h30m", "2d" or "[H:]MM:SS" in seconds.
double read_seconds(std::string_view text);
/// "1073741824", "512M", "2G" (powers of 1024) in bytes.
std::uint64_t read_bytes(std::string_view text);
std::string write_bytes(std::uint64_t bytes);
/// The shortest text that reads back to the same double.
std::string write_real(double value);

/// Index of `text` in `names`; throws BadValue that lists them.
std::size_t read_choice(std::string_view text, std::span<const std::string_view> names);

/// Damerau-Levenshtein distance of adjacent transpositions.
std::size_t edit_distance(std::string_view a, std::string_view b);
/// The name nearest to `text`, empty where none is near enough to be what was meant.
std::string nearest_name(std::string_view text, const std::vector<std::string>& names);

}  // namespace weft
