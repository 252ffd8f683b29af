// Short texts between ranks: paths, results, error messages.
#pragma once
#include <string>
#include <string_view>
#include <vector>

#include "parallel/comm/communicator.hpp"

namespace weft {

/// Every rank's text, by rank. Blocking.
std::vector<std::string> all_gather_text(Communicator& group, std::string_view text);

/// Rank 0's text. Blocking.
std::string broadcast_text(Communicator& group, std::string_view text);

}  // namespace weft
