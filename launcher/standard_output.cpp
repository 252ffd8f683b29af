#include "launcher/standard_output.hpp"

#include <cerrno>
#include <cstdio>

#include "core/io/file_system.hpp"

namespace weft {
namespace {

bool flush() {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return true;
  std::clearerr(stdout);
  if (errno == EPIPE) return false;
  throw IoError("write", "standard output", errno);
}

}  // namespace

bool write_output(std::string_view text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  return flush();
}

void flush_output() { flush(); }

}  // namespace weft
