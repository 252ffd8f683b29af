#include "parallel/comm/agreement.hpp"

#include <algorithm>
#include <string>
#include <vector>

#include "parallel/comm/text_exchange.hpp"

namespace weft {
namespace {

std::string_view next_line(std::string_view& text) {
  const auto length = std::min(text.find('\n'), text.size());
  const auto line = text.substr(0, length);
  text.remove_prefix(std::min(length + 1, text.size()));
  return line;
}

std::string quoted(std::string_view line, bool there) { return there ? fmt::format("'{}'", line) : "nothing more"; }

}  // namespace

void check_same_on_all_ranks(Communicator& world, std::string_view what, std::string_view text) {
  const std::vector<std::string> texts = all_gather_text(world, text);
  for (std::size_t rank = 1; rank < texts.size(); ++rank) {
    std::string_view first = texts[0], other = texts[rank];
    if (first == other) continue;
    for (int number = 1; !first.empty() || !other.empty(); ++number) {
      const bool first_has = !first.empty(), other_has = !other.empty();
      const auto first_line = next_line(first), other_line = next_line(other);
      if (first_line == other_line && first_has == other_has) continue;
      fail_user("{} differ between ranks: line {} is {} on rank 0 and {} on rank {}", what, number,
                quoted(first_line, first_has), quoted(other_line, other_has), rank);
    }
  }
}

}  // namespace weft
