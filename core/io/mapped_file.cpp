#include "core/io/mapped_file.hpp"

#include <sys/mman.h>
#include <unistd.h>

#include <boost/iostreams/device/mapped_file.hpp>
#include <cerrno>
#include <system_error>

#include "core/base/error.hpp"

namespace weft {

struct MappedFile::Mapping {
  boost::iostreams::mapped_file_source source;
};

MappedFile::MappedFile(std::filesystem::path path) : path_(std::move(path)) {
  std::error_code error;
  const std::filesystem::file_status status = std::filesystem::status(path_, error);
  if (status.type() == std::filesystem::file_type::not_found) fail_user("file '{}' does not exist", path_.string());
  if (error) fail_user("file '{}' cannot be read: {}", path_.string(), error.message());
  if (!std::filesystem::is_regular_file(status)) fail_user("'{}' is not a regular file", path_.string());
  if (::access(path_.c_str(), R_OK) != 0)
    fail_user("file '{}' cannot be read: {}", path_.string(), std::system_category().message(errno));
  if (std::filesystem::file_size(path_) == 0) return;
  mapping_ = std::make_unique<Mapping>();
  try {
    mapping_->source.open(path_.string());
  } catch (const std::exception& reason) {
    fail_user("file '{}' cannot be mapped: {}", path_.string(), reason.what());
  }
  bytes_ = std::as_bytes(std::span(mapping_->source.data(), mapping_->source.size()));
  advise(Access::sequential);
}

void MappedFile::advise(Access access) const {
  if (bytes_.empty()) return;
  // A system that does not take the advice reads as well.
  ::madvise(const_cast<std::byte*>(bytes_.data()), bytes_.size(),
            access == Access::random ? MADV_RANDOM : MADV_SEQUENTIAL);
}

MappedFile::~MappedFile() = default;
MappedFile::MappedFile(MappedFile&&) noexcept = default;
MappedFile& MappedFile::operator=(MappedFile&&) noexcept = default;

}  // namespace weft
