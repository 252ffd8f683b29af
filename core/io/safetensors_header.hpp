// Parsing and validation of a safetensors header, apart from how the bytes are held.
#pragma once
#include <cstddef>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/io/safetensors.hpp"

namespace weft::detail {

inline constexpr std::size_t safetensors_header_limit = 100'000'000;

struct SafetensorsType {
  std::string_view name;
  std::size_t bytes;
  std::optional<DType> dtype;  ///< nothing: readable as bytes only
};

/// Null for a name that the format does not know.
const SafetensorsType* find_safetensors_type(std::string_view name);
std::string_view safetensors_name(DType dtype);

struct SafetensorsHeader {
  std::vector<SafetensorsEntry> entries;  ///< in the order of the data
  std::map<std::string, std::string> metadata;
  std::size_t data_begin = 0;  ///< in the file
};

/// `bytes` is the whole file. Throws UserError on any violation of the format.
SafetensorsHeader parse_safetensors(const std::string& file, std::span<const std::byte> bytes);

/// A name from a file, fit for one line of a message: control characters escaped, long ones cut.
std::string printable(std::string_view name);

}  // namespace weft::detail
