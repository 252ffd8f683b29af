// Short texts between ranks: paths, results, error messages.
#pragma once
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/comm/communicator.hpp"

namespace weft {

/// Every rank's text, by rank. Blocking.
std::vector<std::string> all_gather_text(Communicator& group, std::string_view text);

/// Rank 0's text. Blocking.
std::string broadcast_text(Communicator& group, std::string_view text);

/// What `body` returns on rank 0, which alone runs it; what it throws there is thrown on every rank as UserError. Blocking.
std::string from_first_rank(Communicator& group, const std::function<std::string()>& body);

/// Runs `body`, which must not communicate, on every rank. What it throws on any is thrown on all, as UserError or as Error:
/// the message itself where all ranks have the same, else that of the first rank with one, which it names. Blocking.
void run_on_all(Communicator& group, const std::function<void()>& body);

}  // namespace weft
