#include "parallel/comm/text_exchange.hpp"

#include <algorithm>
#include <cstring>
#include <new>

namespace weft {
namespace {

template <class T>
MutView view_of(std::vector<T>& data) {
  return {data.data(), {static_cast<std::int64_t>(data.size())}, dtype_of<T>};
}

constexpr char good = '.', user_error = 'u', other_error = 'e';

std::string outcome_of(const std::function<void()>& body) {
  try {
    body();
  } catch (const UserError& error) {
    return user_error + std::string(error.what());
  } catch (const std::bad_alloc&) {
    return other_error + std::string("out of memory");
  } catch (const std::exception& error) {
    return other_error + std::string(error.what());
  }
  return {good};
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

void run_on_all(Communicator& group, const std::function<void()>& body) {
  const std::vector<std::string> outcomes = all_gather_text(group, outcome_of(body));
  const auto bad = std::ranges::find_if(outcomes, [](const std::string& outcome) { return outcome.front() != good; });
  if (bad == outcomes.end()) return;
  std::string message = bad->substr(1);
  if (std::ranges::count(outcomes, *bad) != std::ssize(outcomes))
    message = fmt::format("rank {}: {}", bad - outcomes.begin(), message);
  if (bad->front() == user_error) throw UserError(message);
  throw Error(message);
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
