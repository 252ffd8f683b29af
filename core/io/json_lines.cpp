#include "core/io/json_lines.hpp"

#include <fcntl.h>
#include <unistd.h>

#include <cerrno>
#include <nlohmann/json.hpp>
#include <string>

#include "core/io/atomic_file.hpp"
#include "core/io/mapped_file.hpp"

namespace weft {
namespace {

// Size of the file up to and with its last newline.
std::int64_t whole_lines_size(int descriptor, const std::filesystem::path& path) {
  off_t end = ::lseek(descriptor, 0, SEEK_END);
  if (end < 0) throw IoError("seek in", path, errno);
  char block[4096];
  while (end > 0) {
    const off_t begin = end > off_t{sizeof(block)} ? end - off_t{sizeof(block)} : 0;
    const ssize_t count = ::pread(descriptor, block, static_cast<std::size_t>(end - begin), begin);
    if (count < 0) throw IoError("read", path, errno);
    for (ssize_t i = count; i-- > 0;)
      if (block[i] == '\n') return begin + i + 1;
    end = begin;
  }
  return 0;
}

std::string line_of(const nlohmann::json& object) {
  return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + "\n";
}

}  // namespace

JsonLinesWriter::JsonLinesWriter(std::filesystem::path path) : path_(std::move(path)) {
  descriptor_ = ::open(path_.c_str(), O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (descriptor_ < 0) throw IoError("open", path_, errno);
  try {
    size_ = whole_lines_size(descriptor_, path_);
    if (::ftruncate(descriptor_, size_) != 0) throw IoError("truncate", path_, errno);
  } catch (...) {
    ::close(descriptor_);
    throw;
  }
}

JsonLinesWriter::~JsonLinesWriter() { ::close(descriptor_); }

void JsonLinesWriter::append(const nlohmann::json& object) {
  const std::string line = line_of(object);
  ssize_t written = 0;
  do {
    written = ::write(descriptor_, line.data(), line.size());
  } while (written < 0 && errno == EINTR);
  if (written == static_cast<ssize_t>(line.size())) {
    size_ += written;
    return;
  }
  const int reason = written < 0 ? errno : ENOSPC;
  // Should this fail too, the next line would follow a torn one: the reader reports that as a damaged file.
  if (written > 0 && ::ftruncate(descriptor_, size_) != 0) throw IoError("truncate", path_, errno);
  throw IoError("append to", path_, reason);
}

void JsonLinesWriter::sync() {
  if (::fsync(descriptor_) != 0) throw IoError("sync", path_, errno);
}

void read_json_lines(const std::filesystem::path& path, const std::function<void(const nlohmann::json&)>& each) {
  const MappedFile file(path);
  std::string_view rest(reinterpret_cast<const char*>(file.bytes().data()), file.bytes().size());
  for (std::int64_t number = 1;; ++number) {
    const std::size_t end = rest.find('\n');
    if (end == std::string_view::npos) return;
    const std::string_view line = rest.substr(0, end);
    rest.remove_prefix(end + 1);
    if (line.empty()) continue;
    const nlohmann::json object = nlohmann::json::parse(line, nullptr, false);
    if (object.is_discarded()) fail_user("file '{}': line {} is not valid JSON", path.string(), number);
    each(object);
  }
}

void filter_json_lines(const std::filesystem::path& path, const std::function<bool(const nlohmann::json&)>& keep) {
  if (!FileSystem::posix().exists(path)) return;
  AtomicFile file(path);
  read_json_lines(path, [&](const nlohmann::json& object) {
    if (keep(object)) file.write(line_of(object));
  });
  file.commit();
}

}  // namespace weft
