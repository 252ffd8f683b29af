#include "run_weft.hpp"

#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <stdexcept>

namespace weft::test {
namespace {

double now() { return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count(); }

struct Pipe {
  int read = -1;
  int write = -1;
  Pipe() {
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) throw std::runtime_error("no pipe");
    read = ends[0];
    write = ends[1];
  }
  ~Pipe() {
    ::close(read);
    if (write >= 0) ::close(write);
  }
  void close_write() {
    ::close(write);
    write = -1;
  }
};

}  // namespace

std::vector<std::string> Outcome::lines() const {
  std::istringstream stream(err);
  std::vector<std::string> result;
  for (std::string line; std::getline(stream, line);) result.push_back(line);
  return result;
}

Outcome run_program(const std::vector<std::string>& words, double seconds) {
  Pipe out, err;
  std::vector<char*> pointers;
  for (const std::string& word : words) pointers.push_back(const_cast<char*>(word.c_str()));
  pointers.push_back(nullptr);
  const pid_t child = ::fork();
  if (child == 0) {
    ::setpgid(0, 0);
    ::dup2(::open("/dev/null", O_RDONLY), STDIN_FILENO);
    ::dup2(out.write, STDOUT_FILENO);
    ::dup2(err.write, STDERR_FILENO);
    ::execvp(pointers[0], pointers.data());
    ::_exit(127);
  }
  out.close_write();
  err.close_write();
  Outcome outcome;
  const double end = now() + seconds;
  bool killed = false;
  pollfd waits[2] = {{out.read, POLLIN, 0}, {err.read, POLLIN, 0}};
  while (waits[0].fd >= 0 || waits[1].fd >= 0) {
    ::poll(waits, 2, 100);
    for (pollfd& wait : waits) {
      if (wait.fd < 0 || wait.revents == 0) continue;
      char buffer[4096];
      const ssize_t count = ::read(wait.fd, buffer, sizeof buffer);
      if (count > 0)
        (wait.fd == out.read ? outcome.out : outcome.err).append(buffer, static_cast<std::size_t>(count));
      else
        wait.fd = -1;
    }
    if (!killed && now() > end) {
      ::kill(-child, SIGKILL);
      killed = true;
    }
  }
  int status = 0;
  ::waitpid(child, &status, 0);
  outcome.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
  return outcome;
}

std::string weft_path() { return WEFT_PROGRAM; }

Outcome run_weft(std::vector<std::string> arguments, double seconds) {
  arguments.insert(arguments.begin(), weft_path());
  return run_program(arguments, seconds);
}

TemporaryFolder::TemporaryFolder() {
  std::string pattern = (std::filesystem::temp_directory_path() / "weft-test-XXXXXX").string();
  if (!::mkdtemp(pattern.data())) throw std::runtime_error("no temporary folder");
  path_ = pattern;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

std::string TemporaryFolder::write(const std::string& name, const std::string& content) const {
  std::filesystem::create_directories((path_ / name).parent_path());
  std::ofstream(path_ / name, std::ios::binary) << content;
  return (path_ / name).string();
}

std::vector<std::string> TemporaryFolder::entries() const {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(path_))
    names.push_back(std::filesystem::relative(entry.path(), path_).string());
  std::ranges::sort(names);
  return names;
}

}  // namespace weft::test
