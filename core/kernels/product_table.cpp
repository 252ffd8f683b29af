#include "core/kernels/product_table.hpp"

#include <algorithm>
#include <charconv>
#include <optional>

#include "core/base/error.hpp"

namespace weft {
namespace {

constexpr std::string_view title = "weft product table 1";
constexpr std::string_view columns = "m n k  a b added out pre  flags  algorithm  us  us-of-first";

class Lines {
 public:
  explicit Lines(std::string_view text) : text_(text) {}
  /// Without its end; nullopt after the last.
  std::optional<std::string_view> next() {
    if (text_.empty()) return std::nullopt;
    const std::size_t end = text_.find('\n');
    const std::string_view line = text_.substr(0, end);
    text_.remove_prefix(end == std::string_view::npos ? text_.size() : end + 1);
    ++number_;
    return line;
  }
  [[noreturn]] void refuse(std::string_view found, std::string_view right) const {
    fail("line {}: found `{}`, expected {}", number_, found.substr(0, 80), right);
  }
  /// A line that begins with `name` and a space: what follows.
  std::string_view field(std::string_view name) {
    const std::string_view line = next().value_or("");
    if (line.size() <= name.size() + 1 || !line.starts_with(name) || line[name.size()] != ' ')
      refuse(line, std::string(name) + " and its value");
    return line.substr(name.size() + 1);
  }

 private:
  std::string_view text_;
  int number_ = 0;
};

/// Takes a number off the front of `line`; false if there is none.
template <class Number>
bool take(std::string_view& line, Number& value) {
  line.remove_prefix(std::min(line.find_first_not_of(' '), line.size()));
  const auto [end, error] = std::from_chars(line.data(), line.data() + line.size(), value);
  if (error != std::errc()) return false;
  line.remove_prefix(static_cast<std::size_t>(end - line.data()));
  return line.empty() || line.front() == ' ';
}

}  // namespace

std::string format_product_table(const ProductTable& table) {
  std::string text = fmt::format("{}\ndevice {}\nlibrary {}\n{}\n", title, table.device, table.library, columns);
  for (const auto& [k, choice] : table.choices)
    text += fmt::format("{} {} {}  {} {} {} {} {}  {}  {}  {:.1f}  {:.1f}\n", k[0], k[1], k[2], k[3], k[4], k[5], k[6],
                        k[7], k[8], choice.algorithm, choice.us, choice.first_us);
  return text;
}

ProductTable parse_product_table(std::string_view text) {
  Lines lines(text);
  const std::string_view first = lines.next().value_or("");
  if (first != title) lines.refuse(first, fmt::format("`{}`", title));
  ProductTable table;
  table.device = lines.field("device");
  std::string_view library = lines.field("library");
  if (const std::string_view all = library; !take(library, table.library) || !library.empty())
    lines.refuse(all, "a version number");
  const std::string_view named = lines.next().value_or("");
  if (named != columns) lines.refuse(named, fmt::format("`{}`", columns));
  while (const auto line = lines.next()) {
    std::string_view left = *line;
    ProductKey key{};
    ProductChoice choice;
    bool right = true;
    for (std::int64_t& word : key) right = right && take(left, word);
    right = right && take(left, choice.algorithm) && take(left, choice.us) && take(left, choice.first_us);
    if (!right || !left.empty() || choice.algorithm < 0) lines.refuse(*line, fmt::format("numbers: {}", columns));
    if (!table.choices.emplace(key, choice).second) lines.refuse(*line, "a product that no line before has");
  }
  return table;
}

ProductTable merge_product_tables(const std::vector<ProductTable>& tables) {
  ProductTable merged;
  for (const ProductTable& table : tables) {
    if (merged.device.empty()) {
      merged.device = table.device;
      merged.library = table.library;
    }
    if (table.device != merged.device || table.library != merged.library)
      fail("tables of {} with library {} and of {} with {}", merged.device, merged.library, table.device,
           table.library);
    merged.choices.insert(table.choices.begin(), table.choices.end());
  }
  return merged;
}

}  // namespace weft
