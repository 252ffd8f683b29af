// weft launch -n N -- COMMAND ...: one bound rank per GPU or share of the cores.
#include <fmt/format.h>

#include <algorithm>
#include <filesystem>

#include "core/base/error.hpp"
#include "launcher/commands.hpp"
#include "launcher/launch_plan.hpp"
#include "launcher/launch_run.hpp"
#include "launcher/option_values.hpp"
#include "launcher/run_folder.hpp"
#include "launcher/standard_output.hpp"

namespace weft {
namespace {

const std::vector<std::string> parallel_commands = {"train", "eval", "lens", "doctor"};

}  // namespace

ExitStatus run_launch(const Options& options) {
  std::vector<std::string> program = options.launch.program;
  const std::string name = program.front();
  if (std::ranges::find(parallel_commands, name) == parallel_commands.end()) {
    const std::string near = nearest_name(name, parallel_commands);
    fail_user("after --: found `{}`, expected {}{}", name, fmt::join(parallel_commands, ", "),
              near.empty() ? "" : fmt::format("; did you mean {}?", near));
  }
  const std::span<const std::string> arguments = std::span(program).subspan(1);
  if (wants_help(arguments)) {
    print_output("{}", help_text(name));
    return ExitStatus::done;
  }
  // Wrong options end here with one line, before any rank is started.
  const Options inner = parse_options(name, arguments, model_names());
  StopPatience patience{options.launch.grace, {}};
  if (name == "train") patience.flight = flight_folder(inner.run.out);
  program.insert(program.begin(), std::filesystem::read_symlink("/proc/self/exe").string());
  return run_plan(plan_launch(options.launch, look_around(), program), patience);
}

}  // namespace weft
