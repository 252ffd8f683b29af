#include "core/io/atomic_file.hpp"

#include <unistd.h>

#include <cerrno>
#include <fstream>
#include <system_error>
#include <utility>

namespace weft {
namespace {

namespace fs = std::filesystem;

constexpr std::size_t buffer_bytes = std::size_t{1} << 20;
constexpr std::string_view partial_mark = ".partial-";
constexpr std::string_view replaced_mark = ".replaced-";

// A name beside `path` that nobody has taken: `attempt(name)` takes it, or throws IoError with EEXIST.
template <class Attempt>
fs::path take_name(const fs::path& path, std::string_view mark, Attempt attempt) {
  for (int number = 0;; ++number) {
    fs::path name = path;
    name += fmt::format("{}{}-{}", mark, ::getpid(), number);
    try {
      attempt(name);
      return name;
    } catch (const IoError& error) {
      if (error.error_number() != EEXIST || number == 9999) throw;
    }
  }
}

bool is_complete(std::string_view name) {
  return name.find(partial_mark) == std::string_view::npos && name.find(replaced_mark) == std::string_view::npos;
}

// "step-7/" names the same folder as "step-7", and a suffix must go to the name.
fs::path without_trailing_slash(fs::path path) { return path.has_filename() ? path : path.parent_path(); }

}  // namespace

AtomicFile::AtomicFile(fs::path path, const FileSystem& files) : files_(files), path_(std::move(path)) {
  buffer_.reserve(buffer_bytes);
  partial_ = take_name(path_, partial_mark, [&](const fs::path& name) { descriptor_ = files_.create(name); });
  partial_exists_ = true;
}

AtomicFile::~AtomicFile() {
  // A destructor cannot report; what stays behind is a partial name, which readers pass over.
  try {
    if (descriptor_ >= 0) files_.close(descriptor_, partial_);
  } catch (const std::exception&) {
  }
  try {
    if (partial_exists_) files_.remove(partial_);
  } catch (const std::exception&) {
  }
}

void AtomicFile::write(std::span<const std::byte> bytes) {
  WEFT_CHECK(descriptor_ >= 0, "write to '{}' after commit", path_.string());
  if (buffer_.size() + bytes.size() > buffer_bytes) flush();
  if (bytes.size() >= buffer_bytes)
    files_.write(descriptor_, partial_, bytes);
  else
    buffer_.insert(buffer_.end(), bytes.begin(), bytes.end());
}

void AtomicFile::rewrite(std::int64_t offset, std::span<const std::byte> bytes) {
  WEFT_CHECK(descriptor_ >= 0, "write to '{}' after commit", path_.string());
  flush();
  files_.write_at(descriptor_, partial_, offset, bytes);
}

void AtomicFile::flush() {
  if (!buffer_.empty()) files_.write(descriptor_, partial_, buffer_);
  buffer_.clear();
}

void AtomicFile::commit() {
  WEFT_CHECK(descriptor_ >= 0, "second commit of '{}'", path_.string());
  flush();
  files_.sync(descriptor_, partial_);
  files_.close(std::exchange(descriptor_, -1), partial_);
  files_.rename(partial_, path_);
  partial_exists_ = false;
  files_.sync_folder(path_.parent_path());
}

void write_file_atomic(const fs::path& path, std::string_view content, const FileSystem& files) {
  AtomicFile file(path, files);
  file.write(content);
  file.commit();
}

void copy_file_atomic(const fs::path& from, const fs::path& to, const FileSystem& files) {
  std::ifstream in(from, std::ios::binary);
  if (!in) throw IoError("open", from, errno);
  AtomicFile out(to, files);
  std::vector<char> piece(buffer_bytes);
  while (in.read(piece.data(), static_cast<std::streamsize>(piece.size())) || in.gcount() > 0)
    out.write(std::string_view(piece.data(), static_cast<std::size_t>(in.gcount())));
  if (in.bad()) throw IoError("read", from, EIO);
  out.commit();
}

AtomicFolder::AtomicFolder(fs::path final_path, const FileSystem& files)
    : files_(files), final_path_(without_trailing_slash(std::move(final_path))) {
  partial_ = take_name(final_path_, partial_mark, [&](const fs::path& name) { files_.make_folder(name); });
  partial_exists_ = true;
}

AtomicFolder::~AtomicFolder() {
  try {
    if (partial_exists_) files_.remove(partial_);
  } catch (const std::exception&) {
  }
}

void AtomicFolder::commit() {
  WEFT_CHECK(partial_exists_, "second commit of '{}'", final_path_.string());
  const fs::path parent = final_path_.parent_path();
  files_.sync_folder(partial_);
  if (!files_.exists(final_path_)) {
    files_.rename(partial_, final_path_);
    partial_exists_ = false;
    files_.sync_folder(parent);
    return;
  }
  if (files_.exchange(partial_, final_path_)) {
    files_.sync_folder(parent);
    partial_exists_ = false;
    files_.remove(partial_);
    return;
  }
  // Between the two renames the old folder is found under its aside name by recover_folder().
  const fs::path aside = take_name(final_path_, replaced_mark, [&](const fs::path& name) {
    if (files_.exists(name)) throw IoError("create", name, EEXIST);
    files_.rename(final_path_, name);
  });
  try {
    files_.rename(partial_, final_path_);
  } catch (const IoError&) {
    files_.rename(aside, final_path_);
    throw;
  }
  partial_exists_ = false;
  files_.sync_folder(parent);
  files_.remove(aside);
}

void remove_folder_atomic(const fs::path& folder, const FileSystem& files) {
  const fs::path path = without_trailing_slash(folder);
  if (!files.exists(path)) return;
  const fs::path aside = take_name(path, partial_mark, [&](const fs::path& name) {
    if (files.exists(name)) throw IoError("create", name, EEXIST);
    files.rename(path, name);
  });
  files.sync_folder(path.parent_path());
  files.remove(aside);
}

void recover_folder(const fs::path& parent, const FileSystem& files) {
  for (const std::string& name : files.list(parent)) {
    if (name.find(partial_mark) != std::string::npos) {
      files.remove(parent / name);
      continue;
    }
    const std::size_t mark = name.find(replaced_mark);
    if (mark == std::string::npos) continue;
    const fs::path original = parent / name.substr(0, mark);
    if (files.exists(original)) {
      files.remove(parent / name);
    } else {
      files.rename(parent / name, original);
      files.sync_folder(parent);
    }
  }
}

std::vector<fs::path> list_complete(const fs::path& parent, std::string_view prefix, const FileSystem& files) {
  std::vector<fs::path> found;
  for (const std::string& name : files.list(parent))
    if (name.starts_with(prefix) && is_complete(name)) found.push_back(parent / name);
  return found;
}

void make_output_folder(const fs::path& folder, std::string_view option) {
  std::error_code error;
  fs::create_directories(folder, error);
  if (!error && !fs::is_directory(folder, error)) error = std::make_error_code(std::errc::not_a_directory);
  if (!error && ::access(folder.c_str(), W_OK | X_OK) != 0) error = std::error_code(errno, std::system_category());
  if (error)
    fail_user("{}: cannot write to folder '{}' ({}): name one that can be made and written to", option, folder.string(),
              error.message());
}

}  // namespace weft
