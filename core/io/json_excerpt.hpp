// JSON values in messages.
#pragma once
#include <cstddef>
#include <nlohmann/json_fwd.hpp>
#include <string>

namespace weft {

/// One line of at most about `longest` bytes of ASCII, however large and deep the value is (nlohmann's dump() of a value nested
/// deep enough overflows the stack).
std::string json_excerpt(const nlohmann::json& value, std::size_t longest = 80);

}  // namespace weft
