// weft COMMAND: finds the command, reads its options, and maps what it throws to an exit status.
#include <fmt/core.h>

#include <chrono>
#include <cstdio>
#include <string>
#include <thread>
#include <vector>

#include "core/base/error.hpp"
#include "launcher/commands.hpp"
#include "launcher/environment.hpp"
#include "launcher/option_values.hpp"
#include "launcher/options_table.hpp"
#include "launcher/processes.hpp"
#include "launcher/ranks.hpp"
#include "launcher/standard_output.hpp"

namespace weft {
namespace {

using Run = ExitStatus (*)(const Options&);

struct Command {
  std::string_view name;
  Run run;
};

constexpr Command commands[] = {
    {"demo", run_demo},     {"train", run_train},     {"launch", run_launch}, {"eval", run_eval},
    {"sample", run_sample}, {"prepare", run_prepare}, {"report", run_report}, {"doctor", run_doctor},
    {"lens", run_lens},     {"export", run_export}, {"import", run_import},
};

constexpr std::string_view test_summary = "run this build's tests; arguments go to ctest";

std::string overview() {
  std::string text = "Usage: weft COMMAND [options]\n\n";
  for (const CommandRow& row : command_table()) text += fmt::format("  {:<9} {}\n", row.name, row.summary);
  text += fmt::format("  {:<9} {}\n", "test", test_summary);
  return text + "\n`weft COMMAND --help` lists a command's options; `weft --version` the version.\n";
}

[[noreturn]] void fail_unknown_command(const std::string& name) {
  std::vector<std::string> names = {"test"};
  for (const CommandRow& row : command_table()) names.emplace_back(row.name);
  const std::string near = nearest_name(name, names);
  fail_user("unknown command `{}`; {}", name,
            near.empty() ? std::string("`weft --help` lists them") : fmt::format("did you mean `weft {}`?", near));
}

ExitStatus run(const std::vector<std::string>& arguments) {
  if (arguments.empty()) {
    fmt::print(stderr, "{}", overview());
    return ExitStatus::user_error;
  }
  const std::string& name = arguments.front();
  if (name == "--help" || name == "-h" || name == "help") {
    print_output("{}", overview());
    return ExitStatus::done;
  }
  if (name == "--version") {
    print_output("weft {}\n", WEFT_VERSION);
    return ExitStatus::done;
  }
  const std::span<const std::string> rest = std::span(arguments).subspan(1);
  if (name == "test") return run_test(rest);
  for (const Command& command : commands) {
    if (command.name != name) continue;
    if (wants_help(rest)) {
      print_output("{}", help_text(name));
      return ExitStatus::done;
    }
    return command.run(parse_options(name, rest, model_names()));
  }
  fail_unknown_command(name);
}

}  // namespace
}  // namespace weft

int main(int argc, char** argv) {
  using namespace weft;
  const std::vector<std::string> arguments(argv + 1, argv + argc);
  // Ranks that are started alike fail alike: the first says it, and its end is the others'. Who is still there after a while
  // has failed alone.
  constexpr int patience = 2;
  const auto fail_with = [&](ExitStatus status, const char* message) {
    const bool named = !arguments.empty() && !arguments.front().starts_with("-") && find_command(arguments.front());
    const RankEnvironment self = rank_environment();
    const std::string command = named ? arguments.front() : "";
    if (self.rank == 0) {
      say_error(command, message);
    } else {
      std::this_thread::sleep_for(std::chrono::seconds(patience));
      say_error(command, fmt::format("rank {} on {}: {}", self.rank, host_name(), message));
    }
    return static_cast<int>(status);
  };
  try {
    const ExitStatus status = run(arguments);
    flush_output();
    return static_cast<int>(status);
  } catch (const UserError& error) {
    return fail_with(ExitStatus::user_error, error.what());
  } catch (const std::bad_alloc&) {
    return fail_with(ExitStatus::failed, "out of memory");
  } catch (const std::exception& error) {
    return fail_with(ExitStatus::failed, error.what());
  }
}
