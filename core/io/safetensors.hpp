// The safetensors format (https://github.com/huggingface/safetensors): 8 bytes of header length, a JSON header, the
// data.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/io/file_system.hpp"
#include "core/tensor/view.hpp"

namespace weft {

/// One tensor of a file. `type` is the format's own name ("F32", "BF16", "F16", …), which DType need not have.
struct SafetensorsEntry {
  std::string name;
  std::string type;
  Shape shape;
  std::size_t begin = 0;  ///< bytes from the start of the data
  std::size_t end = 0;
};

/// A memory-mapped file whose header was found valid in every respect: sizes, types, shapes, offsets without gap or
/// overlap, no duplicate name. Views point into the map and live as long as the reader.
class SafetensorsReader {
 public:
  /// Throws UserError (one line: file, tensor, what was found) on any violation.
  explicit SafetensorsReader(const std::filesystem::path& path);
  /// The same over bytes in memory, which must outlive the reader; `name` stands for the file in messages.
  SafetensorsReader(std::string name, std::span<const std::byte> bytes);
  ~SafetensorsReader();
  SafetensorsReader(SafetensorsReader&&) noexcept;
  SafetensorsReader& operator=(SafetensorsReader&&) noexcept;

  /// In the order of the data.
  const std::vector<SafetensorsEntry>& entries() const;
  const std::map<std::string, std::string>& metadata() const;
  /// Null when there is no such tensor.
  const SafetensorsEntry* find(std::string_view name) const;
  /// Throws UserError when there is no such tensor.
  const SafetensorsEntry& entry(std::string_view name) const;
  std::span<const std::byte> bytes(const SafetensorsEntry& entry) const;
  /// Zero-copy; only data that a foreign file placed off its natural alignment is copied, once. Throws UserError when
  /// the tensor is missing or of a type that has no DType (F16, I8, …). Safe to call from several threads.
  View view(std::string_view name) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

/// One tensor to write: from memory, or from a callback that fills consecutive pieces of its bytes in order.
struct SafetensorsSource {
  using Fill = std::function<void(std::size_t offset, std::span<std::byte> piece)>;

  /// `view` must be contiguous host memory and live until the write.
  SafetensorsSource(std::string name_, View view);
  SafetensorsSource(std::string name_, DType dtype_, Shape shape_, Fill fill_);

  std::string name;
  DType dtype;
  Shape shape;
  Fill fill;  ///< empty: `data`
  View data;
};

/// What was written for one tensor: `checksum` is that of its bytes (core/io/checksum.hpp).
struct SafetensorsWritten {
  std::string name;
  std::uint64_t checksum = 0;
};

/// Writes atomically, in pieces, and returns the checksums in the order of `tensors`. The data begins at a multiple of
/// 64 bytes and goes by element size, largest first, otherwise in the given order, so every tensor is aligned. Throws
/// IoError, or Error on a duplicate name.
std::vector<SafetensorsWritten> write_safetensors(const std::filesystem::path& path,
                                                  std::span<const SafetensorsSource> tensors,
                                                  const std::map<std::string, std::string>& metadata = {},
                                                  const FileSystem& files = FileSystem::posix());

}  // namespace weft
