# Model presets are config files; the program carries them, so that it works wherever it is copied.
function(weft_embed_presets output)
  file(GLOB presets CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/presets/*.cfg)
  list(SORT presets)
  set(names "")
  set(texts "")
  foreach(preset IN LISTS presets)
    get_filename_component(name ${preset} NAME_WE)
    file(READ ${preset} text)
    string(APPEND names "    \"${name}\",\n")
    string(APPEND texts "    R\"preset(${text})preset\",\n")
  endforeach()
  list(LENGTH presets count)
  set_property(DIRECTORY APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${presets})
  file(CONFIGURE OUTPUT ${output} @ONLY CONTENT [[
#include <algorithm>
#include <array>

#include "models/registry.hpp"

namespace weft {
namespace {

constexpr std::array<std::string_view, @count@> names = {
@names@};
constexpr std::array<std::string_view, @count@> texts = {
@texts@};

}  // namespace

std::optional<std::string> find_preset(std::string_view name) {
  const auto found = std::ranges::find(names, name);
  if (found == names.end()) return std::nullopt;
  return std::string(texts[static_cast<std::size_t>(found - names.begin())]);
}

std::span<const std::string_view> preset_names() { return names; }

}  // namespace weft
]])
endfunction()
