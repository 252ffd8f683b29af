// Other processes, as /proc shows them.
#pragma once
#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace weft {

std::vector<pid_t> all_processes();
std::vector<pid_t> children_of(pid_t parent);
/// All below `ancestor`, nearest first.
std::vector<pid_t> descendants_of(pid_t ancestor);
/// A variable of the environment that the process was started with.
std::optional<std::string> variable_of(pid_t process, const std::string& name);
/// The state's letter: R runs, S sleeps, D waits for a device, T is stopped, Z has ended; '\0' where there is no such process.
char state_of(pid_t process);
/// A thread of the process has that name (at most 15 letters).
bool has_thread(pid_t process, std::string_view name);
/// The process catches or blocks the signal: it would not die of it.
bool listens_to(pid_t process, int signal);

/// The name of this host, as ranks report it.
std::string host_name();

}  // namespace weft
