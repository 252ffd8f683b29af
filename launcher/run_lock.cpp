#include "launcher/run_lock.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>

#include "core/base/clock.hpp"
#include "core/base/error.hpp"

namespace weft {
namespace {

constexpr useconds_t retry_microseconds = 50000;

}  // namespace

RunLock::RunLock(const std::filesystem::path& folder, double patience_seconds) {
  descriptor_ = ::open((folder / ".lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  if (descriptor_ < 0) return;
  const double end = seconds_now() + patience_seconds;
  while (::flock(descriptor_, LOCK_EX | LOCK_NB) != 0 && (errno == EWOULDBLOCK || errno == EINTR)) {
    if (seconds_now() > end) {
      ::close(descriptor_);
      fail_user("--out: another run is writing to {}; wait for its end, or name another folder", folder.string());
    }
    ::usleep(retry_microseconds);
  }
}

RunLock::~RunLock() {
  if (descriptor_ >= 0) ::close(descriptor_);
}

}  // namespace weft
