// Checks that all ranks were started alike.
#pragma once
#include <string_view>

#include "parallel/comm/communicator.hpp"

namespace weft {

/// Throws the same UserError on every rank if `text` is not the same on all: it names `what`, the first rank that
/// differs and the first line in which it does. A newline at the end makes no difference.
void check_same_on_all_ranks(Communicator& world, std::string_view what, std::string_view text);

}  // namespace weft
