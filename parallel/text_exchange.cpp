#include "parallel/text_exchange.hpp"

#include <algorithm>
#include <cstring>

namespace weft {
namespace {

template <class T>
MutView view_of(std::vector<T>& data) {
  return {data.data(), {static_cast<std::int64_t>(data.size())}, dtype_of<T>};
}

}  // namespace

std::vector<std::string> all_gather_text(Communicator& group, std::string_view text) {
  std::vector<std::int64_t> mine{static_cast<std::int64_t>(text.size())};
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(group.size()));
  group.all_gather(view_of(mine), view_of(sizes)).wait();
  const auto longest = static_cast<std::size_t>(*std::ranges::max_element(sizes));
  std::vector<std::string> texts(sizes.size());
  if (longest == 0) return texts;
  std::vector<std::uint8_t> padded(longest), all(longest * sizes.size());
  std::memcpy(padded.data(), text.data(), text.size());
  group.all_gather(view_of(padded), view_of(all)).wait();
  for (std::size_t rank = 0; rank < sizes.size(); ++rank)
    texts[rank].assign(reinterpret_cast<const char*>(all.data() + rank * longest),
                       static_cast<std::size_t>(sizes[rank]));
  return texts;
}

std::string broadcast_text(Communicator& group, std::string_view text) {
  std::vector<std::int64_t> size{static_cast<std::int64_t>(text.size())};
  group.broadcast(view_of(size), 0).wait();
  std::vector<std::uint8_t> bytes(static_cast<std::size_t>(size[0]));
  if (bytes.empty()) return {};
  if (group.rank() == 0) std::memcpy(bytes.data(), text.data(), text.size());
  group.broadcast(view_of(bytes), 0).wait();
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

std::string from_first_rank(Communicator& group, const std::function<std::string()>& body) {
  std::string result, error;
  if (group.rank() == 0) {
    try {
      result = body();
    } catch (const std::exception& failed) {
      error = failed.what();
    }
  }
  error = broadcast_text(group, error);
  if (!error.empty()) throw UserError(error);
  return broadcast_text(group, result);
}

}  // namespace weft
