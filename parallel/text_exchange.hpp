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

}  // namespace weft
