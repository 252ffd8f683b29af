// Hostile JSON: a good document with some values, or bytes, changed.
#pragma once
#include <cstdint>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

namespace weft::test {

inline nlohmann::json odd_value(std::mt19937& random) {
  using nlohmann::json;
  static const std::vector<json> values = {nullptr,
                                           true,
                                           false,
                                           0,
                                           -1,
                                           1,
                                           2,
                                           0.5,
                                           1e300,
                                           "",
                                           "gpt2",
                                           "BPE",
                                           "Ġ",
                                           "a b",
                                           "\n",
                                           1 << 30,
                                           INT64_MIN,
                                           UINT64_MAX,
                                           json::array(),
                                           json::object(),
                                           {{"type", "Sequence"}},
                                           {"a", "b"}};
  return values[random() % values.size()];
}

/// Changes one value somewhere below, removes it, or puts another beside it.
inline void mutate(nlohmann::json& value, std::mt19937& random) {
  nlohmann::json* place = &value;
  while (place->is_structured() && !place->empty()) {
    auto element = place->begin();
    std::advance(element, random() % place->size());
    if (random() % 8 == 0) {
      if (place->is_object())
        (*place)[random() % 2 ? element.key() + "x" : "factor"] = odd_value(random);
      else
        place->push_back(random() % 2 ? *element : odd_value(random));
      return;
    }
    if (random() % 8 == 0) {
      place->erase(element);
      return;
    }
    place = &*element;
    if (random() % 4 == 0) break;
  }
  *place = odd_value(random);
}

/// A mutated text: in one of three cases some of its bytes are changed, or its end is missing.
inline std::string mutated(const nlohmann::json& good, std::mt19937& random) {
  nlohmann::json wrong = good;
  for (unsigned changes = random() % 3 + 1; changes > 0; --changes) mutate(wrong, random);
  std::string text = wrong.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  if (random() % 3 != 0) return text;
  for (unsigned changes = random() % 4; changes > 0; --changes)
    text[random() % text.size()] = static_cast<char>(random());
  if (random() % 4 == 0) text.resize(random() % text.size());
  return text;
}

/// Arrays or objects in one another, deeper than a stack would hold.
inline std::string nested(const std::string& open, const std::string& close) {
  constexpr int depth = 200000;
  std::string text;
  for (int level = 0; level < depth; ++level) text += open;
  text += "[]";
  for (int level = 0; level < depth; ++level) text += close;
  return text;
}

}  // namespace weft::test
