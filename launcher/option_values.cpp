#include "launcher/option_values.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

namespace weft {
namespace {

template <class Number>
bool parse_all(std::string_view text, Number& number) {
  if (text.starts_with('+')) text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size() && !text.empty();
}

std::string lower(std::string_view text) {
  std::string result(text);
  std::ranges::transform(result, result.begin(), [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

std::string words_for(IntegerRange range) {
  if (range.most == INT64_MAX) return fmt::format("a whole number of at least {}", range.least);
  return fmt::format("a whole number from {} to {}", range.least, range.most);
}

std::string words_for(RealRange range) {
  using Bounds = RealRange::Bounds;
  if (range.most >= 1e300)
    return range.bounds == Bounds::open_below ? fmt::format("a number above {}", range.least)
                                              : fmt::format("a number of at least {}", range.least);
  if (range.bounds == Bounds::open_above)
    return fmt::format("a number of at least {} and below {}", range.least, range.most);
  if (range.bounds == Bounds::open_below)
    return fmt::format("a number above {} and at most {}", range.least, range.most);
  return fmt::format("a number from {} to {}", range.least, range.most);
}

constexpr std::string_view seconds_words = "a time such as 90, 90s, 15m, 1h30m or 1:30:00";
constexpr std::string_view bytes_words = "a size such as 1073741824, 512M or 2G";

double clock_seconds(std::string_view text) {
  double total = 0;
  int fields = 0;
  while (true) {
    const std::size_t colon = text.find(':');
    double field = 0;
    if (!parse_all(text.substr(0, colon), field) || field < 0 || ++fields > 3)
      throw BadValue(std::string(seconds_words));
    total = total * 60 + field;
    if (colon == std::string_view::npos) return total;
    text.remove_prefix(colon + 1);
  }
}

}  // namespace

std::int64_t read_integer(std::string_view text, IntegerRange range) {
  std::int64_t value = 0;
  if (!parse_all(text, value) || value < range.least || value > range.most) throw BadValue(words_for(range));
  return value;
}

double read_real(std::string_view text, RealRange range) {
  double value = 0;
  using Bounds = RealRange::Bounds;
  const bool fine = parse_all(text, value) && std::isfinite(value) && value >= range.least && value <= range.most &&
                    !(range.bounds == Bounds::open_above && value == range.most) &&
                    !(range.bounds == Bounds::open_below && value == range.least);
  if (!fine) throw BadValue(words_for(range));
  return value;
}

bool is_yes_no(std::string_view text) {
  static constexpr std::array<std::string_view, 8> words = {"yes", "no", "true", "false", "on", "off", "1", "0"};
  return std::ranges::find(words, lower(text)) != words.end();
}

bool read_yes_no(std::string_view text) {
  if (!is_yes_no(text)) throw BadValue("yes or no");
  const std::string word = lower(text);
  return word == "yes" || word == "true" || word == "on" || word == "1";
}

double read_seconds(std::string_view text) {
  if (text.find(':') != std::string_view::npos) return clock_seconds(text);
  double total = 0;
  std::string rest = lower(text);
  if (double plain = 0; parse_all(rest, plain) && plain >= 0 && std::isfinite(plain)) return plain;
  if (rest.empty()) throw BadValue(std::string(seconds_words));
  while (!rest.empty()) {
    const std::size_t unit = rest.find_first_of("dhms");
    double field = 0;
    if (unit == std::string::npos || !parse_all(std::string_view(rest).substr(0, unit), field) || field < 0 ||
        !std::isfinite(field))
      throw BadValue(std::string(seconds_words));
    const char letter = rest[unit];
    total += field * (letter == 'd' ? 86400 : letter == 'h' ? 3600 : letter == 'm' ? 60 : 1);
    rest.erase(0, unit + 1);
  }
  return total;
}

std::uint64_t read_bytes(std::string_view text) {
  std::string rest = lower(text);
  if (rest.ends_with("ib"))
    rest.resize(rest.size() - 2);
  else if (rest.size() > 1 && rest.ends_with("b"))
    rest.resize(rest.size() - 1);
  double scale = 1;
  constexpr std::string_view units = "kmgt";
  if (const std::size_t unit = rest.empty() ? std::string_view::npos : units.find(rest.back());
      unit != std::string_view::npos) {
    scale = std::exp2(10.0 * static_cast<double>(unit + 1));
    rest.pop_back();
  }
  double value = 0;
  if (!parse_all(rest, value) || value < 0 || !std::isfinite(value) || value * scale >= 0x1p63)
    throw BadValue(std::string(bytes_words));
  return static_cast<std::uint64_t>(value * scale);
}

std::string write_bytes(std::uint64_t bytes) {
  constexpr std::string_view units = "TGMK";
  for (std::size_t i = 0; i < units.size(); ++i) {
    const std::uint64_t unit = std::uint64_t{1} << (10 * (units.size() - i));
    if (bytes != 0 && bytes % unit == 0) return fmt::format("{}{}", bytes / unit, units[i]);
  }
  return fmt::format("{}", bytes);
}

std::string write_real(double value) { return fmt::format("{}", value); }

std::size_t read_choice(std::string_view text, std::span<const std::string_view> names) {
  const auto found = std::ranges::find(names, lower(text));
  if (found != names.end()) return static_cast<std::size_t>(found - names.begin());
  std::string list;
  for (std::size_t i = 0; i < names.size(); ++i)
    list += fmt::format("{}{}", i == 0 ? "" : i + 1 == names.size() ? " or " : ", ", names[i]);
  throw BadValue(list);
}

std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::vector<std::size_t>> d(a.size() + 1, std::vector<std::size_t>(b.size() + 1));
  for (std::size_t i = 0; i <= a.size(); ++i) d[i][0] = i;
  for (std::size_t j = 0; j <= b.size(); ++j) d[0][j] = j;
  for (std::size_t i = 1; i <= a.size(); ++i) {
    for (std::size_t j = 1; j <= b.size(); ++j) {
      d[i][j] = std::min({d[i - 1][j] + 1, d[i][j - 1] + 1, d[i - 1][j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1])
        d[i][j] = std::min(d[i][j], d[i - 2][j - 2] + 1);
    }
  }
  return d[a.size()][b.size()];
}

std::string nearest_name(std::string_view text, const std::vector<std::string>& names) {
  std::string best;
  std::size_t best_distance = std::max<std::size_t>(1, text.size() / 3) + 1;
  for (const std::string& name : names) {
    // A beginning of a name ("--check" for "--checkpoint-every") is as near as one slip.
    const std::size_t distance = text.size() >= 3 && name.starts_with(text)
                                     ? std::min<std::size_t>(1, edit_distance(text, name))
                                     : edit_distance(text, name);
    if (distance < best_distance) {
      best = name;
      best_distance = distance;
    }
  }
  return best;
}

}  // namespace weft
