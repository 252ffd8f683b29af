// A whole file, read-only, mapped into memory.
#pragma once
#include <cstddef>
#include <filesystem>
#include <memory>
#include <span>

namespace weft {

/// The order of reads, which the system's read-ahead follows.
enum class Access : std::uint8_t { sequential, random };

class MappedFile {
 public:
  /// Throws UserError when the path is missing, no regular file, or not readable. An empty file maps to no bytes.
  explicit MappedFile(std::filesystem::path path);
  ~MappedFile();
  MappedFile(MappedFile&&) noexcept;
  MappedFile& operator=(MappedFile&&) noexcept;

  /// How it will be read from now on; the default is from front to back.
  void advise(Access access) const;
  std::span<const std::byte> bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }

 private:
  struct Mapping;
  std::filesystem::path path_;
  std::unique_ptr<Mapping> mapping_;
  std::span<const std::byte> bytes_;
};

}  // namespace weft
