// weft demo: the main job on text that this machine has: train, sample, report.
#include <fcntl.h>
#include <fmt/core.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/base/error.hpp"
#include "core/data/header_corpus.hpp"
#include "core/io/atomic_file.hpp"
#include "launcher/commands.hpp"
#include "launcher/launch_plan.hpp"
#include "launcher/launch_run.hpp"
#include "launcher/progress.hpp"
#include "launcher/report.hpp"
#include "launcher/run_files.hpp"
#include "launcher/run_folder.hpp"
#include "launcher/standard_output.hpp"

namespace weft {
namespace {

std::string own_path() { return std::filesystem::read_symlink("/proc/self/exe").string(); }

struct DemoFiles {
  std::string train;
  std::string valid;
};

// The machine's headers as two files in the run's folder.
DemoFiles write_corpus(const Options& options) {
  const HeaderCorpus corpus = collect_headers(standard_header_folders());
  const std::filesystem::path folder = std::filesystem::path(options.run.out) / "text";
  make_output_folder(folder, "--out");
  write_file_atomic(folder / "train.txt", corpus.train);
  write_file_atomic(folder / "valid.txt", corpus.valid);
  if (!options.run.quiet)
    fmt::print(stderr, "Training on {} C++ headers of this machine ({}B); {} more ({}B) are held out.\n",
               corpus.train_files.size(), format_count(static_cast<double>(corpus.train.size())),
               corpus.valid_files.size(), format_count(static_cast<double>(corpus.valid.size())));
  return {(folder / "train.txt").string(), (folder / "valid.txt").string()};
}

// A demo that came to its end starts anew; one that was stopped goes on.
void clear_finished(const std::filesystem::path& out) {
  const auto summary = read_summary(out / "run.json");
  if (!summary || summary->status != "done") return;
  std::filesystem::remove_all(out / "checkpoints");
  std::filesystem::remove(out / "run.json");
}

struct Output {
  ExitStatus status = ExitStatus::done;
  std::string text;
};

// Runs this program with other arguments and takes its standard output.
Output run_self(std::vector<std::string> arguments) {
  int ends[2];
  if (::pipe2(ends, O_CLOEXEC) != 0) fail("no pipe: {}", std::strerror(errno));
  arguments.insert(arguments.begin(), own_path());
  const pid_t child = ::fork();
  if (child < 0) fail("cannot fork: {}", std::strerror(errno));
  if (child == 0) {
    std::vector<char*> pointers;
    for (std::string& argument : arguments) pointers.push_back(argument.data());
    pointers.push_back(nullptr);
    ::dup2(ends[1], STDOUT_FILENO);
    ::execv(pointers[0], pointers.data());
    ::_exit(127);
  }
  ::close(ends[1]);
  Output output;
  char buffer[4096];
  for (ssize_t count; (count = ::read(ends[0], buffer, sizeof buffer)) != 0;) {
    if (count < 0 && errno != EINTR) break;
    if (count > 0) output.text.append(buffer, static_cast<std::size_t>(count));
  }
  ::close(ends[0]);
  int status = 0;
  while (::waitpid(child, &status, 0) < 0 && errno == EINTR) {
  }
  output.status = map_status(status);
  return output;
}

}  // namespace

ExitStatus run_demo(const Options& options) {
  Options train = options;
  train.command = "train";
  make_output_folder(options.run.out, "--out");
  if (!options.given("resume")) clear_finished(options.run.out);
  if (!options.given("data")) {
    const DemoFiles files = write_corpus(options);
    train.data.data = {files.train};
    train.data.valid = {files.valid};
  }
  const std::filesystem::path config = std::filesystem::path(options.run.out) / "demo.cfg";
  write_config(train, config.string());
  const LaunchPlan plan =
      plan_launch(options.launch, look_around(), {own_path(), "train", "--config", config.string()});
  const ExitStatus trained = run_plan(plan, {options.launch.grace, flight_folder(options.run.out)});
  if (trained != ExitStatus::done) return trained;

  const SampleOptions& how = options.sample;
  const Output sample = run_self({"sample", "--checkpoint", options.run.out, "--prompt", how.prompt, "--tokens",
                                  std::to_string(how.tokens), "--temperature", fmt::format("{}", how.temperature),
                                  "--top-k", std::to_string(how.top_k), "--top-p", fmt::format("{}", how.top_p),
                                  "--seed", std::to_string(options.run.seed)});
  if (sample.status != ExitStatus::done) return sample.status;
  const RunFolder folder(options.run.out);
  folder.write_sample(sample.text);
  const std::filesystem::path report = write_report(folder.root());
  if (!options.run.quiet) print_output("\nA sample:\n\n{}\nReport: {}\n", sample.text, report.string());
  return ExitStatus::done;
}

}  // namespace weft
