// The one table of options.
#pragma once
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "launcher/options.hpp"

namespace weft {

/// Commands that an option belongs to.
enum CommandSet : unsigned {
  for_train = 1u << 0,
  for_launch = 1u << 1,
  for_demo = 1u << 2,
  for_eval = 1u << 3,
  for_sample = 1u << 4,
  for_prepare = 1u << 5,
  for_doctor = 1u << 6,
  for_report = 1u << 7,
  for_lens = 1u << 8,
  for_export = 1u << 9,
  for_import = 1u << 10,
};

enum class OptionKind : std::uint8_t { value, list, flag };

struct OptionRow {
  std::string_view name;
  std::string_view group;
  std::string_view placeholder;  ///< "N", "FILE", "a|b"
  std::string_view help;
  unsigned commands = 0;
  OptionKind kind = OptionKind::value;
  std::function<void(Options&, const std::vector<std::string>&)> read;  ///< throws BadValue
  std::function<std::vector<std::string>(const Options&)> write;        ///< as read takes it
  std::string_view shown_default = {};                                  ///< help's words where the value says little
  char letter = 0;
};

struct CommandRow {
  std::string_view name;
  unsigned bit = 0;
  std::string_view usage;
  std::string_view summary;
  std::string_view positional = {};  ///< the option that arguments without a name go to
};

const std::vector<OptionRow>& option_table();
const std::vector<CommandRow>& command_table();
/// Null where there is no such command.
const CommandRow* find_command(std::string_view name);
/// What is different for a command before anything is read (`--out` of the demo).
void apply_command_defaults(Options& options);

}  // namespace weft
