// Other processes, as /proc shows them.
#pragma once
#include <sys/types.h>

#include <optional>
#include <string>
#include <vector>

namespace weft {

std::vector<pid_t> children_of(pid_t parent);
/// All below `ancestor`, nearest first.
std::vector<pid_t> descendants_of(pid_t ancestor);
/// A variable of the environment that the process was started with.
std::optional<std::string> variable_of(pid_t process, const std::string& name);
/// The process catches or blocks the signal: it would not die of it.
bool listens_to(pid_t process, int signal);

}  // namespace weft
