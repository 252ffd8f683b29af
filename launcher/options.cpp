#include "launcher/options.hpp"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <boost/program_options.hpp>
#include <fstream>
#include <sstream>

#include "core/base/error.hpp"
#include "core/data/utf8.hpp"
#include "core/io/atomic_file.hpp"
#include "launcher/option_values.hpp"
#include "launcher/options_check.hpp"
#include "launcher/options_table.hpp"

namespace weft {
namespace {

namespace po = boost::program_options;

/// One option as it was written somewhere; `where` names it in messages ("--steps", "steps (line 3 of run.cfg)").
struct Setting {
  const OptionRow* row = nullptr;
  std::vector<std::string> texts;
  std::string where;
  Source source = Source::built_in;
};

constexpr std::string_view config_help = "read options from a file of `key = value` lines";

std::string trimmed(std::string_view text) {
  const std::size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return std::string(text.substr(first, text.find_last_not_of(" \t\r") - first + 1));
}

constexpr std::array<std::pair<char, char>, 4> escapes = {{{'\n', 'n'}, {'\t', 't'}, {'"', '"'}, {'\\', '\\'}}};

// Quotes keep spaces at the ends, empty values and line breaks.
std::string quoted(const std::string& value) {
  const bool plain = !value.empty() && value == trimmed(value) && value.front() != '"' &&
                     value.find_first_of("\n\t\\") == std::string::npos;
  if (plain) return value;
  std::string result = "\"";
  for (const char c : value) {
    const auto found = std::ranges::find(escapes, c, &std::pair<char, char>::first);
    result += found == escapes.end() ? std::string(1, c) : std::string{'\\', found->second};
  }
  return result + "\"";
}

std::string unquoted(const std::string& value) {
  if (value.size() < 2 || value.front() != '"' || value.back() != '"') return value;
  std::string result;
  for (std::size_t i = 1; i + 1 < value.size(); ++i) {
    const auto found =
        value[i] == '\\' ? std::ranges::find(escapes, value[i + 1], &std::pair<char, char>::second) : escapes.end();
    result += found == escapes.end() ? value[i] : found->first;
    if (found != escapes.end()) ++i;
  }
  return result;
}

std::vector<std::string> names_for(unsigned command) {
  std::vector<std::string> names = {"config", "help"};
  for (const OptionRow& row : option_table())
    if (row.commands & command) names.emplace_back(row.name);
  return names;
}

const OptionRow* find_row(std::string_view name) {
  const auto found = std::ranges::find(option_table(), name, &OptionRow::name);
  return found == option_table().end() ? nullptr : &*found;
}

std::string commands_of(const OptionRow& row) {
  std::string list;
  for (const CommandRow& command : command_table())
    if (row.commands & command.bit) list += fmt::format("{}`weft {}`", list.empty() ? "" : ", ", command.name);
  return list;
}

[[noreturn]] void fail_unknown(std::string_view name, std::string_view shown, const CommandRow& command) {
  if (const OptionRow* row = find_row(name))
    fail_user("{} is not an option of `weft {}`; it belongs to {}", shown, command.name, commands_of(*row));
  const std::string near = nearest_name(name, names_for(command.bit));
  if (near.empty()) fail_user("unknown option {}; `weft {} --help` lists them", shown, command.name);
  fail_user("unknown option {}; did you mean {}{}?", shown, shown.starts_with("--") ? "--" : "", near);
}

po::options_description describe(const CommandRow& command) {
  po::options_description description;
  auto add = description.add_options();
  add("config", po::value<std::vector<std::string>>());
  for (const OptionRow& row : option_table()) {
    if (!(row.commands & command.bit)) continue;
    auto* value = po::value<std::vector<std::string>>();
    if (row.kind == OptionKind::list) value->multitoken();
    if (row.kind == OptionKind::flag) value->implicit_value({"yes"}, "yes");
    std::string name(row.name);
    if (row.letter) name += fmt::format(",{}", row.letter);
    add(name.c_str(), value);
  }
  return description;
}

// `--tied no` as `--tied=no`: Program_options takes a flag's optional value only when it is attached.
std::vector<std::string> attach_flag_values(std::span<const std::string> arguments) {
  std::vector<std::string> result;
  for (const std::string& argument : arguments) {
    if (!result.empty() && result.back().starts_with("--") && is_yes_no(argument)) {
      const OptionRow* row = find_row(std::string_view(result.back()).substr(2));
      if (row && row->kind == OptionKind::flag) {
        result.back() += "=" + argument;
        continue;
      }
    }
    result.push_back(argument);
  }
  return result;
}

struct CommandLine {
  std::vector<Setting> settings;
  std::string config;
};

CommandLine read_command_line(const CommandRow& command, std::span<const std::string> arguments) {
  const po::options_description description = describe(command);
  po::positional_options_description positional;
  if (!command.positional.empty()) positional.add(std::string(command.positional).c_str(), -1);
  po::parsed_options parsed(&description);
  try {
    namespace style = po::command_line_style;
    parsed = po::command_line_parser(attach_flag_values(arguments))
                 .options(description)
                 .positional(positional)
                 .style(style::unix_style & ~style::allow_guessing)
                 .run();
  } catch (const po::unknown_option& error) {
    const std::string shown = error.get_option_name();
    fail_unknown(shown.substr(std::min(shown.find_first_not_of('-'), shown.size())), shown, command);
  } catch (const po::too_many_positional_options_error&) {
    for (std::size_t i = 0; i < arguments.size(); ++i)
      if (!arguments[i].starts_with("-") && (i == 0 || !arguments[i - 1].starts_with("-")))
        fail_user("unexpected argument `{}`; options begin with --, `weft {} --help` lists them", arguments[i],
                  command.name);
    fail_user("an argument belongs to no option; `weft {} --help` lists them", command.name);
  } catch (const po::error_with_option_name& error) {
    const std::string shown = error.get_option_name();
    const OptionRow* row = find_row(shown.substr(std::min(shown.find_first_not_of('-'), shown.size())));
    fail_user("{} needs a value{}", shown, row ? fmt::format(": {}", row->placeholder) : "");
  } catch (const po::error& error) {
    fail_user("{}; `weft {} --help` lists the options", error.what(), command.name);
  }
  CommandLine result;
  for (const po::option& option : parsed.options) {
    for (const std::string& text : option.value)
      if (!detail::is_utf8(text)) fail_user("--{}: found bytes that are not UTF-8, expected UTF-8", option.string_key);
    if (option.string_key == "config") {
      if (!result.config.empty())
        fail_user("--config is given twice: `{}` and `{}`", result.config, option.value.front());
      result.config = option.value.front();
      continue;
    }
    const OptionRow* row = find_row(option.string_key);
    const bool bare = option.position_key >= 0;
    const std::vector<std::string> texts = option.value.empty() ? std::vector<std::string>{"yes"} : option.value;
    const auto same = std::ranges::find(result.settings, row, &Setting::row);
    if (same == result.settings.end()) {
      result.settings.push_back(
          {row, texts, bare ? std::string(row->placeholder) : fmt::format("--{}", row->name), Source::command_line});
    } else if (row->kind == OptionKind::list) {
      same->texts.insert(same->texts.end(), texts.begin(), texts.end());
    } else {
      fail_user("{} is given twice: `{}` and `{}`", same->where, same->texts.front(), texts.front());
    }
  }
  return result;
}

std::string read_config_file(const std::string& path, std::string_view option) {
  std::ifstream file(path);
  std::stringstream content;
  if (file) content << file.rdbuf();
  if (!file || content.bad()) fail_user("--{}: cannot read `{}`", option, path);
  return content.str();
}

// Keys of other commands are passed over: one file may serve training and sampling.
std::vector<Setting> read_config(const CommandRow& command, const std::string& content, std::string_view name,
                                 Source source) {
  std::vector<Setting> settings;
  std::istringstream lines(content);
  std::string line;
  for (int number = 1; std::getline(lines, line); ++number) {
    if (const std::string bare = trimmed(line); bare.empty() || bare[0] == '#') continue;
    if (!detail::is_utf8(line))
      fail_user("line {} of {}: found bytes that are not UTF-8, expected UTF-8", number, name);
    const std::size_t equals = line.find('=');
    const std::string key = trimmed(std::string_view(line).substr(0, equals));
    const std::string where = fmt::format("`{}` (line {} of {})", key, number, name);
    if (equals == std::string::npos)
      fail_user("line {} of {}: found `{}`, expected `key = value`", number, name, trimmed(line));
    const OptionRow* row = find_row(key);
    if (!row) fail_unknown(key, where, command);
    if (!(row->commands & command.bit)) continue;
    const std::string value = unquoted(trimmed(std::string_view(line).substr(equals + 1)));
    const auto same = std::ranges::find(settings, row, &Setting::row);
    if (same == settings.end())
      settings.push_back({row, {value}, where, source});
    else if (row->kind == OptionKind::list)
      same->texts.push_back(value);
    else
      fail_user("{} was set before in the same file", where);
  }
  return settings;
}

void apply_settings(Options& options, const std::vector<Setting>& settings) {
  for (const Setting& setting : settings) {
    try {
      setting.row->read(options, setting.texts);
    } catch (const BadValue& expected) {
      fail_user("{}: found `{}`, expected {}", setting.where, setting.texts.front(), expected.what());
    }
    options.sources[std::string(setting.row->name)] = setting.source;
  }
}

const Setting* find_setting(const std::vector<Setting>& settings, std::string_view name) {
  const auto found = std::ranges::find_if(settings, [&](const Setting& s) { return s.row->name == name; });
  return found == settings.end() ? nullptr : &*found;
}

std::vector<Setting> read_preset(const CommandRow& command, const std::string& name, const ModelNames& names) {
  if (const auto text = names.preset ? names.preset(name) : std::nullopt)
    return read_config(command, *text, fmt::format("preset {}", name), Source::preset);
  if (name.find('/') != std::string::npos || name.ends_with(".cfg")) {
    std::vector<Setting> settings = read_config(command, read_config_file(name, "model"), name, Source::preset);
    if (find_setting(settings, "model")) fail_user("{} sets `model`: a preset cannot be built on another", name);
    return settings;
  }
  std::vector<std::string> all = names.presets;
  all.insert(all.end(), names.mixers.begin(), names.mixers.end());
  std::ranges::sort(all);
  all.erase(std::unique(all.begin(), all.end()), all.end());
  const std::string near = nearest_name(name, all);
  fail_user("--model: found `{}`, expected {} or a preset file (PATH/NAME.cfg){}", name, fmt::join(all, ", "),
            near.empty() ? "" : fmt::format("; did you mean {}?", near));
}

}  // namespace

Source Options::source(std::string_view name) const {
  const auto found = sources.find(name);
  return found == sources.end() ? Source::built_in : found->second;
}

bool wants_help(std::span<const std::string> arguments) {
  for (const std::string& argument : arguments) {
    if (argument == "--") return false;
    if (argument == "--help" || argument == "-h") return true;
  }
  return false;
}

Options parse_options(std::string_view command_name, std::span<const std::string> arguments, const ModelNames& names) {
  const CommandRow* command = find_command(command_name);
  WEFT_CHECK(command, "no command {}", command_name);
  Options options;
  options.command = command_name;
  apply_command_defaults(options);
  if (command->bit == for_launch) {
    const auto dashes = std::ranges::find(arguments, "--");
    if (dashes != arguments.end()) options.launch.program.assign(dashes + 1, arguments.end());
    arguments = arguments.first(static_cast<std::size_t>(dashes - arguments.begin()));
  }
  const CommandLine line = read_command_line(*command, arguments);
  std::vector<Setting> config;
  if (!line.config.empty())
    config = read_config(*command, read_config_file(line.config, "config"), line.config, Source::config);
  if (find_row("model")->commands & command->bit) {
    std::string model = options.model.name;
    if (const Setting* setting = find_setting(config, "model")) model = setting->texts.front();
    if (const Setting* setting = find_setting(line.settings, "model")) model = setting->texts.front();
    apply_settings(options, read_preset(*command, model, names));
  }
  apply_settings(options, config);
  apply_settings(options, line.settings);
  check_needed(options);
  resolve(options);
  check_fit(options);
  return options;
}

Options parse_config(std::string_view command_name, const std::string& text, std::string_view name) {
  const CommandRow* command = find_command(command_name);
  WEFT_CHECK(command, "no command {}", command_name);
  Options options;
  options.command = command_name;
  apply_command_defaults(options);
  apply_settings(options, read_config(*command, text, name, Source::config));
  resolve(options);
  check_fit(options);
  return options;
}

std::string help_text(std::string_view command_name) {
  const CommandRow* command = find_command(command_name);
  WEFT_CHECK(command, "no command {}", command_name);
  Options defaults;
  defaults.command = command_name;
  apply_command_defaults(defaults);
  std::string result = fmt::format("Usage: {}\n{}\n", command->usage, command->summary);
  std::string_view group;
  const auto add = [&](std::string name, std::string text) {
    if (name.size() > 33) {
      result += fmt::format("{}\n", name);
      name.clear();
    }
    // 100 columns, wrapped at spaces.
    constexpr std::size_t indent = 34, width = 100 - indent;
    bool first = true;
    while (!text.empty()) {
      std::size_t cut = text.size();
      if (cut > width) cut = std::min(text.rfind(' ', width), text.size());
      result += fmt::format("{:<{}}{}\n", first ? name : "", indent, text.substr(0, cut));
      text.erase(0, std::min(cut + 1, text.size()));
      first = false;
    }
  };
  for (const OptionRow& row : option_table()) {
    if (!(row.commands & command->bit)) continue;
    if (row.group != group) {
      group = row.group;
      result += fmt::format("\n{}:\n", group);
    }
    const std::string letter = row.letter ? fmt::format("-{}, ", row.letter) : "";
    const std::vector<std::string> values = row.write(defaults);
    std::string shown(row.shown_default);
    if (shown.empty() && !values.empty()) shown = values.front();
    std::string text(row.help);
    if (!shown.empty()) text += fmt::format("{}[{}]", text.empty() ? "" : " ", shown);
    if (text.empty()) text = " ";
    add(fmt::format("  {}--{} {}", letter, row.name, row.kind == OptionKind::flag ? "yes|no" : row.placeholder), text);
  }
  result += "\n";
  add("  --config FILE", std::string(config_help));
  add("  --help", "this text");
  return result;
}

namespace {

std::string text_of(const Options& options, const std::function<bool(const OptionRow&)>& wanted) {
  const CommandRow* command = find_command(options.command);
  WEFT_CHECK(command, "no command {}", options.command);
  std::string result;
  std::string_view group;
  for (const OptionRow& row : option_table()) {
    if (!(row.commands & command->bit) || !wanted(row)) continue;
    if (row.group != group) {
      group = row.group;
      result += fmt::format("{}# {}\n", result.empty() ? "" : "\n", group);
    }
    for (const std::string& value : row.write(options)) result += fmt::format("{} = {}\n", row.name, quoted(value));
  }
  return result;
}

}  // namespace

std::string config_text(const Options& options) {
  return text_of(options, [](const OptionRow&) { return true; });
}

std::string model_text(const Options& options) {
  return text_of(options, [](const OptionRow& row) { return row.group == "Model" || row.name == "seq"; });
}

void write_config(const Options& options, const std::string& path) { write_file_atomic(path, config_text(options)); }

}  // namespace weft
