#include "core/io/json_excerpt.hpp"

#include <nlohmann/json.hpp>

namespace weft {
namespace {

using nlohmann::json;

// What stands at the head of a value.
json head_of(const json& value, std::size_t depth, std::size_t longest) {
  if (value.is_string()) return value.get_ref<const std::string&>().substr(0, longest);
  if (!value.is_structured()) return value;
  if (depth == 0 && !value.empty()) return "…";
  json head = value.is_object() ? json::object() : json::array();
  for (const auto& [key, element] : value.items()) {
    if (head.size() == longest) break;
    if (value.is_object())
      head[key.substr(0, longest)] = head_of(element, depth - 1, longest);
    else
      head.push_back(head_of(element, depth - 1, longest));
  }
  return head;
}

}  // namespace

std::string json_excerpt(const json& value, std::size_t longest) {
  constexpr std::size_t deepest = 4;
  std::string text = head_of(value, deepest, longest).dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > longest) text = text.substr(0, longest) + "…";
  return text;
}

}  // namespace weft
