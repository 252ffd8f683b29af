#include "parallel/comm/agreement.hpp"

#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

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
  const auto ranks = static_cast<std::size_t>(world.size());
  std::vector<std::int64_t> lengths(ranks);
  const auto own_length = static_cast<std::int64_t>(text.size());
  world.all_gather(View(&own_length, {1}, DType::i64), MutView(lengths.data(), {world.size()}, DType::i64)).wait();
  const auto longest = static_cast<std::size_t>(*std::max_element(lengths.begin(), lengths.end()));
  if (longest == 0) return;

  std::vector<char> own(longest), all(longest * ranks);
  std::copy(text.begin(), text.end(), own.begin());
  const auto bytes = static_cast<std::int64_t>(longest);
  world.all_gather(View(own.data(), {bytes}, DType::u8), MutView(all.data(), {world.size(), bytes}, DType::u8)).wait();
  const auto text_of = [&](std::size_t rank) {
    return std::string_view(all.data() + rank * longest, static_cast<std::size_t>(lengths[rank]));
  };
  for (std::size_t rank = 1; rank < ranks; ++rank) {
    std::string_view first = text_of(0), other = text_of(rank);
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
