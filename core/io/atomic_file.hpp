// Files and folders that appear under their name complete or not at all, whatever crashes: written aside, synced,
// renamed, and the folder synced.
#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/io/file_system.hpp"

namespace weft {

/// Writes `NAME.partial-…` beside the final name; commit() puts it there. Destroyed without commit (or after a failed
/// operation), it removes what it wrote and leaves the old content in place. Every failure throws IoError.
class AtomicFile {
 public:
  explicit AtomicFile(std::filesystem::path path, const FileSystem& files = FileSystem::posix());
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;

  /// Appends; small pieces are gathered into larger writes.
  void write(std::span<const std::byte> bytes);
  void write(std::string_view text) { write(std::as_bytes(std::span(text.data(), text.size()))); }
  /// Replaces bytes already written (a header whose counts come last).
  void rewrite(std::int64_t offset, std::span<const std::byte> bytes);
  /// Sync, rename, sync of the folder. Nothing may be written afterwards.
  void commit();
  const std::filesystem::path& path() const { return path_; }

 private:
  void flush();

  const FileSystem& files_;
  std::filesystem::path path_;
  std::filesystem::path partial_;
  std::vector<std::byte> buffer_;
  int descriptor_ = -1;
  bool partial_exists_ = false;
};

/// The whole content at once.
void write_file_atomic(const std::filesystem::path& path, std::string_view content,
                       const FileSystem& files = FileSystem::posix());

/// Throws IoError.
void copy_file_atomic(const std::filesystem::path& from, const std::filesystem::path& to,
                      const FileSystem& files = FileSystem::posix());

/// A folder that appears under its name complete (a checkpoint). Make one, write files into path() (from any number of
/// processes: hand path() on; each file must be synced, as AtomicFile does), then commit() once all have written.
/// Destroyed without commit, it removes the partial folder.
class AtomicFolder {
 public:
  /// Makes `NAME.partial-…` beside the final name; the parent must exist.
  explicit AtomicFolder(std::filesystem::path final_path, const FileSystem& files = FileSystem::posix());
  ~AtomicFolder();
  AtomicFolder(const AtomicFolder&) = delete;
  AtomicFolder& operator=(const AtomicFolder&) = delete;

  /// Where to write until commit().
  const std::filesystem::path& path() const { return partial_; }
  const std::filesystem::path& final_path() const { return final_path_; }
  /// Syncs the partial folder, renames it to the final name, and syncs the parent. An older folder of that name is
  /// swapped out whole and then removed.
  void commit();

 private:
  const FileSystem& files_;
  std::filesystem::path final_path_;
  std::filesystem::path partial_;
  bool partial_exists_ = false;
};

/// Renames the folder aside before removing it, so that a crash leaves no half folder under its name.
void remove_folder_atomic(const std::filesystem::path& folder, const FileSystem& files = FileSystem::posix());

/// Clears what a crash left in `parent`: puts a folder that was being replaced back under its name if its successor did
/// not get there, and removes every partial file and folder. Call it while nobody writes there.
void recover_folder(const std::filesystem::path& parent, const FileSystem& files = FileSystem::posix());

/// Complete entries of `parent` whose name begins with `prefix`, in byte order of their names; partial ones are left
/// out.
std::vector<std::filesystem::path> list_complete(const std::filesystem::path& parent, std::string_view prefix,
                                                 const FileSystem& files = FileSystem::posix());

/// Makes the folder and its missing parents. Throws UserError when a path cannot be made or written to: one line that
/// names `option`, the folder and the reason.
void make_output_folder(const std::filesystem::path& folder, std::string_view option);

}  // namespace weft
