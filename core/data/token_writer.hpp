// Writes a token file with llm.c's header and its side file, in pieces.
#pragma once
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "core/data/token_file.hpp"
#include "core/io/atomic_file.hpp"

namespace weft {

class TokenWriter {
 public:
  /// uint16 where the vocabulary fits, else uint32. `tokenizer` names the file of that tokenizer, for the side file.
  TokenWriter(std::filesystem::path path, std::int64_t vocab_size, std::string tokenizer,
              const FileSystem& files = FileSystem::posix());

  /// Appends tokens that stand for `text_bytes` bytes of text. Throws Error on a token outside the vocabulary.
  void write(std::span<const std::int32_t> tokens, std::int64_t text_bytes);
  /// Puts the file and then the side file in place.
  void commit();
  const TokenFileMeta& meta() const { return meta_; }

 private:
  template <class Element>
  void append(std::span<const std::int32_t> tokens);

  const FileSystem& files_;
  AtomicFile file_;
  TokenFileMeta meta_;
  std::vector<std::byte> buffer_;
};

}  // namespace weft
