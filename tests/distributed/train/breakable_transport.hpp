// Ranks whose collectives can be broken on purpose, to show that a comparison would notice.
#pragma once
#include <functional>
#include <memory>

#include "parallel/comm/communicator.hpp"

namespace weft::test {

/// What happens to a collective: each rank keeps its own part where nothing is `exchanged`, and the result is multiplied.
struct Break {
  bool exchanged = true;
  float factor = 1;
};

/// What to do to a collective of a group of that name.
using BreakRule = std::function<Break(const std::string& group, const Collective& what)>;

/// Works through `inner`, which must outlive it, and through groups made of it.
std::unique_ptr<Communicator> make_breakable(Communicator& inner, CommLog& log, BreakRule rule);

}  // namespace weft::test
