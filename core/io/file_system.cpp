#include "core/io/file_system.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <system_error>

namespace weft {
namespace {

namespace fs = std::filesystem;

std::string describe(std::string_view operation, const fs::path& path, int error_number) {
  return fmt::format("cannot {} '{}': {}", operation, path.string(), std::system_category().message(error_number));
}

}  // namespace

IoError::IoError(std::string_view operation, fs::path path, int error_number)
    : Error(describe(operation, path, error_number)), path_(std::move(path)), error_number_(error_number) {}

int FileSystem::create(const fs::path& path) const {
  const int descriptor = ::open(path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
  if (descriptor < 0) throw IoError("create", path, errno);
  return descriptor;
}

void FileSystem::write(int descriptor, const fs::path& path, std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t written = ::write(descriptor, bytes.data(), bytes.size());
    if (written < 0) {
      if (errno == EINTR) continue;
      throw IoError("write", path, errno);
    }
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void FileSystem::write_at(int descriptor, const fs::path& path, std::int64_t offset,
                          std::span<const std::byte> bytes) const {
  while (!bytes.empty()) {
    const ssize_t written = ::pwrite(descriptor, bytes.data(), bytes.size(), offset);
    if (written < 0) {
      if (errno == EINTR) continue;
      throw IoError("write", path, errno);
    }
    offset += written;
    bytes = bytes.subspan(static_cast<std::size_t>(written));
  }
}

void FileSystem::sync(int descriptor, const fs::path& path) const {
  if (::fsync(descriptor) != 0) throw IoError("sync", path, errno);
}

void FileSystem::close(int descriptor, const fs::path& path) const {
  // Linux frees the descriptor on EINTR too.
  if (::close(descriptor) != 0 && errno != EINTR) throw IoError("close", path, errno);
}

void FileSystem::rename(const fs::path& from, const fs::path& to) const {
  if (::rename(from.c_str(), to.c_str()) != 0) throw IoError("rename to", to, errno);
}

bool FileSystem::exchange(const fs::path& a, const fs::path& b) const {
  if (::renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) == 0) return true;
  if (errno == EINVAL || errno == ENOSYS || errno == EOPNOTSUPP) return false;
  throw IoError("replace", b, errno);
}

void FileSystem::sync_folder(const fs::path& folder) const {
  const fs::path path = folder.empty() ? fs::path(".") : folder;
  const int descriptor = ::open(path.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (descriptor < 0) throw IoError("open folder", path, errno);
  const int failed = ::fsync(descriptor) != 0 ? errno : 0;
  ::close(descriptor);
  // Some network file systems have nothing to sync in a folder and say so.
  if (failed != 0 && failed != EINVAL && failed != EOPNOTSUPP) throw IoError("sync folder", path, failed);
}

void FileSystem::make_folder(const fs::path& folder) const {
  if (::mkdir(folder.c_str(), 0777) != 0) throw IoError("make folder", folder, errno);
}

void FileSystem::remove(const fs::path& path) const {
  std::error_code error;
  fs::remove_all(path, error);
  if (error) throw IoError("remove", path, error.value());
}

bool FileSystem::exists(const fs::path& path) const {
  std::error_code error;
  const fs::file_status status = fs::symlink_status(path, error);
  if (error && status.type() != fs::file_type::not_found) throw IoError("examine", path, error.value());
  return fs::exists(status);
}

std::vector<std::string> FileSystem::list(const fs::path& folder) const {
  std::vector<std::string> names;
  std::error_code error;
  fs::directory_iterator entries(folder.empty() ? fs::path(".") : folder, error);
  if (error == std::errc::no_such_file_or_directory) return names;
  for (; !error && entries != fs::directory_iterator(); entries.increment(error))
    names.push_back(entries->path().filename().string());
  if (error) throw IoError("list", folder, error.value());
  std::sort(names.begin(), names.end());
  return names;
}

const FileSystem& FileSystem::posix() {
  static const FileSystem files;
  return files;
}

}  // namespace weft
