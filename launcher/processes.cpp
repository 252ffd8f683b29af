#include "launcher/processes.hpp"

#include <unistd.h>

#include <charconv>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <sstream>

namespace weft {
namespace {

struct Stat {
  char state = 0;
  pid_t parent = 0;
};

std::optional<Stat> stat_of(pid_t process) {
  std::ifstream file("/proc/" + std::to_string(process) + "/stat");
  std::string line;
  if (!std::getline(file, line)) return std::nullopt;
  // The name in parentheses may hold anything.
  std::istringstream rest(line.substr(std::min(line.rfind(')') + 1, line.size())));
  Stat stat;
  return rest >> stat.state >> stat.parent ? std::optional(stat) : std::nullopt;
}

}  // namespace

std::vector<pid_t> all_processes() {
  std::vector<pid_t> all;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator("/proc", error)) {
    const std::string name = entry.path().filename();
    pid_t pid = 0;
    const auto [end, problem] = std::from_chars(name.data(), name.data() + name.size(), pid);
    if (problem == std::errc() && end == name.data() + name.size()) all.push_back(pid);
  }
  return all;
}

std::vector<pid_t> children_of(pid_t parent) {
  std::vector<pid_t> children = all_processes();
  std::erase_if(children, [&](pid_t pid) {
    const auto stat = stat_of(pid);
    return !stat || stat->parent != parent;
  });
  return children;
}

std::vector<pid_t> descendants_of(pid_t ancestor) {
  std::vector<pid_t> all = children_of(ancestor);
  for (std::size_t i = 0; i < all.size(); ++i)
    for (const pid_t child : children_of(all[i])) all.push_back(child);
  return all;
}

std::optional<std::string> variable_of(pid_t process, const std::string& name) {
  std::ifstream file("/proc/" + std::to_string(process) + "/environ");
  std::string variable;
  while (std::getline(file, variable, '\0'))
    if (variable.starts_with(name + "=")) return variable.substr(name.size() + 1);
  return std::nullopt;
}

char state_of(pid_t process) {
  const auto stat = stat_of(process);
  return stat ? stat->state : '\0';
}

bool has_thread(pid_t process, std::string_view name) {
  std::error_code error;
  const std::filesystem::path tasks = "/proc/" + std::to_string(process) + "/task";
  for (std::filesystem::directory_iterator entry(tasks, error), end; !error && entry != end; entry.increment(error)) {
    std::ifstream file(entry->path() / "comm");
    std::string found;
    if (std::getline(file, found) && found == name) return true;
  }
  return false;
}

bool listens_to(pid_t process, int signal) {
  std::ifstream file("/proc/" + std::to_string(process) + "/status");
  std::string line;
  std::uint64_t mask = 0;
  while (std::getline(file, line))
    if (line.starts_with("SigCgt:") || line.starts_with("SigBlk:")) mask |= std::stoull(line.substr(7), nullptr, 16);
  return (mask >> (signal - 1) & 1) != 0;
}

std::string host_name() {
  char name[256] = {};
  ::gethostname(name, sizeof name - 1);
  return name;
}

}  // namespace weft
