// The commands, one function each, and the exit statuses that they promise.
#pragma once
#include <cstdint>
#include <span>
#include <string>

#include "launcher/options.hpp"

namespace weft {

enum class ExitStatus : std::uint8_t {
  done = 0,
  user_error = 2,
  failed = 3,
  stopped = 75,  ///< by a signal or the time limit, after saving: start it again
};

ExitStatus run_demo(const Options& options);
ExitStatus run_doctor(const Options& options);
ExitStatus run_eval(const Options& options);
ExitStatus run_export(const Options& options);
ExitStatus run_import(const Options& options);
ExitStatus run_launch(const Options& options);
ExitStatus run_lens(const Options& options);
ExitStatus run_prepare(const Options& options);
ExitStatus run_report(const Options& options);
ExitStatus run_sample(const Options& options);
/// Runs the tests of the build folder that this program lies in; `arguments` go to ctest.
ExitStatus run_test(std::span<const std::string> arguments);
ExitStatus run_train(const Options& options);

}  // namespace weft
