// The few file-system operations that saving needs, behind one seam, so that a test can fail or crash at each of them.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "core/base/error.hpp"

namespace weft {

/// A failed operation on a file: what was tried, on which path, and the system's errno.
class IoError : public Error {
 public:
  IoError(std::string_view operation, std::filesystem::path path, int error_number);

  int error_number() const { return error_number_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
  int error_number_;
};

/// POSIX files without state of its own; every operation throws IoError. Override to inject failures.
class FileSystem {
 public:
  virtual ~FileSystem() = default;

  /// A descriptor of a new, empty file; EEXIST where the name is taken.
  virtual int create(const std::filesystem::path& path) const;
  /// Writes all of `bytes`; short writes and EINTR are retried.
  virtual void write(int descriptor, const std::filesystem::path& path, std::span<const std::byte> bytes) const;
  /// Replaces bytes already written, from `offset` on.
  virtual void write_at(int descriptor, const std::filesystem::path& path, std::int64_t offset,
                        std::span<const std::byte> bytes) const;
  /// Data and size reach the disk.
  virtual void sync(int descriptor, const std::filesystem::path& path) const;
  virtual void close(int descriptor, const std::filesystem::path& path) const;
  /// Replaces a file, or an empty folder, of the new name.
  virtual void rename(const std::filesystem::path& from, const std::filesystem::path& to) const;
  /// Swaps two existing names in one step. False where the system cannot, with nothing changed.
  virtual bool exchange(const std::filesystem::path& a, const std::filesystem::path& b) const;
  /// The names in a folder reach the disk.
  virtual void sync_folder(const std::filesystem::path& folder) const;
  /// One level; EEXIST where the name is taken.
  virtual void make_folder(const std::filesystem::path& folder) const;
  /// A file, or a folder with all in it; a missing name is no error.
  virtual void remove(const std::filesystem::path& path) const;
  virtual bool exists(const std::filesystem::path& path) const;
  /// Names (without the folder's path) in byte order; a missing folder has none.
  virtual std::vector<std::string> list(const std::filesystem::path& folder) const;

  /// The real one: stateless, lives as long as the program.
  static const FileSystem& posix();
};

}  // namespace weft
