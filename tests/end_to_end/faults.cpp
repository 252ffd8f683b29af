#include "faults.hpp"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <chrono>
#include <csignal>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>
#include <thread>

namespace weft::test {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

std::string content_of(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream content;
  content << file.rdbuf();
  return content.str();
}

Words words_of(const fs::path& path) {
  Words words;
  std::istringstream text(content_of(path));
  for (std::string word; std::getline(text, word, '\0');) words.push_back(word);
  return words;
}

struct Process {
  pid_t pid;
  Words words;
};

std::vector<Process> processes_naming(const std::string& text) {
  std::vector<Process> found;
  std::error_code error;
  for (const auto& entry : fs::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename();
    pid_t pid = 0;
    if (std::from_chars(name.data(), name.data() + name.size(), pid).ptr != name.data() + name.size()) continue;
    Words words = words_of(entry.path() / "cmdline");
    const auto names = [&](const std::string& word) { return word.find(text) != std::string::npos; };
    if (pid != ::getpid() && std::ranges::any_of(words, names)) found.push_back({pid, std::move(words)});
  }
  return found;
}

// Whole lines alone: the last one may be on its way.
std::vector<json> rows_of(const fs::path& path) {
  std::vector<json> rows;
  const std::string content = content_of(path);
  std::istringstream text(content.substr(0, content.rfind('\n') + 1));
  for (std::string line; std::getline(text, line);)
    if (json row = json::parse(line, nullptr, false); row.is_object()) rows.push_back(std::move(row));
  return rows;
}

std::string checkpoint_name(std::int64_t step) {
  const std::string digits = std::to_string(step);
  return "step-" + std::string(8 - digits.size(), '0') + digits;
}

}  // namespace

bool wait_until(const std::function<bool()>& condition, double seconds) {
  const auto end = std::chrono::steady_clock::now() + std::chrono::duration<double>(seconds);
  while (!condition()) {
    if (std::chrono::steady_clock::now() > end) return false;
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return true;
}

Background::Background(const Words& words, const TemporaryFolder& folder)
    : out_(folder / "stdout"), err_(folder / "stderr") {
  std::vector<char*> pointers;
  for (const std::string& word : words) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  pid_ = ::fork();
  if (pid_ == 0) {
    ::setpgid(0, 0);
    ::dup2(::open("/dev/null", O_RDONLY), STDIN_FILENO);
    ::dup2(::open(out_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600), STDOUT_FILENO);
    ::dup2(::open(err_.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_APPEND, 0600), STDERR_FILENO);
    ::execvp(pointers[0], pointers.data());
    ::_exit(127);
  }
  // Both sides set it: whoever comes first.
  ::setpgid(pid_, pid_);
}

Background::~Background() {
  if (running()) wait(0);
}

bool Background::running() {
  int status = 0;
  if (!status_ && ::waitpid(pid_, &status, WNOHANG) == pid_)
    status_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return !status_;
}

void Background::signal(int number) const {
  if (!status_) ::kill(pid_, number);
}

std::string Background::err() const { return content_of(err_); }

Outcome Background::wait(double seconds) {
  if (!wait_until([&] { return !running(); }, seconds)) {
    ::kill(-pid_, SIGKILL);
    wait_until([&] { return !running(); });
  }
  Outcome outcome;
  outcome.status = status_.value_or(-1);
  outcome.out = content_of(out_);
  outcome.err = content_of(err_);
  return outcome;
}

Training::Training(Words options) : options_(std::move(options)) {
  std::string text;
  for (int i = 0; i < 1000; ++i) text += "line " + std::to_string(i * 7919 % 1000) + " of a text\n";
  folder_.write("data.txt", text);
}

Training::~Training() {
  for (const Process& process : processes_naming(out())) ::kill(process.pid, SIGKILL);
  nobody_left();
}

Words Training::train(const Words& more) const {
  Words words = {weft_path(), "train", "--out", out()};
  std::map<std::string, std::string> values = {{"--data", folder_ / "data.txt"},
                                               {"--layers", "1"},
                                               {"--d-model", "32"},
                                               {"--heads", "2"},
                                               {"--seq", "32"},
                                               {"--batch", "12"},
                                               {"--threads", "1"},
                                               {"--dropout", "0.1"},
                                               {"--warmup", "10"},
                                               {"--lr", "0.003"},
                                               {"--schedule", "constant"},
                                               {"--valid-every", "0"},
                                               {"--checkpoint-every", "0"},
                                               {"--steps", "100000000"}};
  for (const Words& list : {options_, more})
    for (std::size_t i = 0; i + 1 < list.size(); i += 2) values[list[i]] = list[i + 1];
  for (const auto& [name, value] : values) words.insert(words.end(), {name, value});
  return words;
}

Words Training::command(int ranks, const Words& more) const {
  Words words = train(more);
  if (ranks > 0) {
    const Words launch = {"launch", "-n", std::to_string(ranks), "--"};
    words.insert(words.begin() + 1, launch.begin(), launch.end());
  }
  return words;
}

Words Training::bare_mpirun(int ranks, const Words& more) const {
  Words words = {"env",
                 "OMPI_ALLOW_RUN_AS_ROOT=1",
                 "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1",
                 "OMPI_MCA_rmaps_base_oversubscribe=1",
                 "OMPI_MCA_hwloc_base_binding_policy=none",
                 "OMPI_MCA_mpi_yield_when_idle=1",
                 "OMPI_MCA_pml=ob1",
                 "OMPI_MCA_btl=self,vader",
                 "mpirun",
                 "-q",
                 "-n",
                 std::to_string(ranks)};
  const Words program = train(more);
  words.insert(words.end(), program.begin(), program.end());
  return words;
}

std::map<std::int64_t, std::string> Training::step_values(const std::string& key) const {
  std::map<std::int64_t, std::string> values;
  for (const json& row : rows_of(folder_ / "out/metrics.jsonl")) {
    if (row.contains("valid_loss")) continue;
    const bool first = values.emplace(row.at("step").get<std::int64_t>(), row.at(key).dump()).second;
    EXPECT_TRUE(first) << "step " << row.at("step") << " stands twice in " << out();
  }
  return values;
}

std::map<std::int64_t, std::string> Training::valid_losses() const {
  std::map<std::int64_t, std::string> values;
  for (const json& row : rows_of(folder_ / "out/metrics.jsonl")) {
    if (!row.contains("valid_loss")) continue;
    const bool first = values.emplace(row.at("step").get<std::int64_t>(), row.at("valid_loss").dump()).second;
    EXPECT_TRUE(first) << "the validation of step " << row.at("step") << " stands twice in " << out();
  }
  return values;
}

std::int64_t Training::last_step() const {
  // The tail is enough, and it is asked for often.
  std::ifstream file(folder_ / "out/metrics.jsonl", std::ios::binary);
  file.seekg(0, std::ios::end);
  const std::int64_t size = file ? static_cast<std::int64_t>(file.tellg()) : 0;
  file.seekg(std::max<std::int64_t>(0, size - 4096));
  std::int64_t last = 0;
  for (std::string line; std::getline(file, line) && !file.eof();)
    if (const json row = json::parse(line, nullptr, false); row.is_object()) last = row.value("step", last);
  return last;
}

std::vector<std::int64_t> Training::checkpoints() const {
  std::vector<std::int64_t> steps;
  std::error_code error;
  for (fs::directory_iterator entry(folder_ / "out/checkpoints", error), end; !error && entry != end;
       entry.increment(error)) {
    const std::string name = entry->path().filename();
    if (name.size() == 13 && name.starts_with("step-")) steps.push_back(std::stoll(name.substr(5)));
  }
  std::ranges::sort(steps);
  return steps;
}

std::int64_t Training::last_checkpoint() const {
  const auto steps = checkpoints();
  return steps.empty() ? 0 : steps.back();
}

std::string Training::checkpoint_state(std::int64_t step) const {
  const fs::path path = fs::path(out()) / "checkpoints" / checkpoint_name(step) / "index.json";
  const json index = json::parse(content_of(path), nullptr, false);
  if (!index.is_object()) return "no index at " + path.string();
  return index.at("content").at("state").dump();
}

std::string Training::checkpoint_data(std::int64_t step) const {
  const fs::path folder = fs::path(out()) / "checkpoints" / checkpoint_name(step);
  std::map<std::string, std::string> files;
  std::error_code error;
  for (fs::directory_iterator entry(folder, error), end; !error && entry != end; entry.increment(error))
    if (entry->path().extension() == ".safetensors") files[entry->path().filename()] = content_of(entry->path());
  std::string data;
  for (const auto& [name, content] : files) data += name + "\n" + content;
  return data;
}

std::map<int, pid_t> Training::ranks() const {
  std::map<int, pid_t> found;
  for (const Process& process : processes_naming(out())) {
    if (process.words.size() < 2 || !process.words[0].ends_with("weft") || process.words[1] != "train") continue;
    int rank = 0;
    for (const std::string& variable : words_of("/proc/" + std::to_string(process.pid) + "/environ"))
      if (variable.starts_with("OMPI_COMM_WORLD_RANK=")) rank = std::stoi(variable.substr(variable.find('=') + 1));
    found[rank] = process.pid;
  }
  return found;
}

std::optional<pid_t> Training::mpirun() const {
  for (const Process& process : processes_naming(out()))
    if (process.words[0] == "mpirun") return process.pid;
  return std::nullopt;
}

std::vector<pid_t> Training::processes() const {
  std::vector<pid_t> pids;
  for (const Process& process : processes_naming(out())) pids.push_back(process.pid);
  return pids;
}

std::vector<std::string> Training::shared_memory() const {
  std::vector<std::string> paths;
  for (const auto& [rank, pid] : ranks()) {
    std::istringstream maps(content_of("/proc/" + std::to_string(pid) + "/maps"));
    for (std::string line; std::getline(maps, line);)
      if (const std::size_t at = line.find("/dev/shm/"); at != std::string::npos) paths.push_back(line.substr(at));
  }
  return paths;
}

bool Training::nobody_left(double seconds) const {
  return wait_until([&] { return processes_naming(out()).empty(); }, seconds);
}

void expect_same_bits(const Training& a, const Training& b, std::int64_t step) {
  for (const char* key : {"loss", "grad_norm"}) {
    const auto of_a = a.step_values(key), of_b = b.step_values(key);
    for (std::int64_t i = 1; i <= step; ++i) {
      ASSERT_TRUE(of_a.contains(i) && of_b.contains(i)) << key << " of step " << i << " is missing";
      ASSERT_EQ(of_a.at(i), of_b.at(i)) << key << " of step " << i;
    }
  }
  EXPECT_EQ(a.checkpoint_state(step), b.checkpoint_state(step));
  const std::string data = a.checkpoint_data(step);
  EXPECT_FALSE(data.empty());
  EXPECT_TRUE(data == b.checkpoint_data(step)) << "the tensors of step " << step << " differ";
}

std::string host_name() {
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  return name;
}

}  // namespace weft::test
