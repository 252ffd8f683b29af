// Token files, memory-mapped.
//
// Which format a file has, where none is asked for: an llm.c header (256 int32: magic 20240520 version 1 for uint16,
// magic 20240801 version 7 for uint32) is recognised by its magic; else the side file NAME.meta.json that `weft
// prepare` writes tells; else the extension .bin means nanoGPT's raw uint16; anything else is bytes (vocabulary 256).
#pragma once
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

#include "core/data/token_source.hpp"
#include "core/data/tokenizer.hpp"
#include "core/io/file_system.hpp"

namespace weft {

/// `u16` and `u32` skip an llm.c header where there is one.
enum class TokenFormat : std::uint8_t { automatic, bytes, u16, u32 };

/// "auto", "bytes", "u16" or "u32"; throws UserError on another.
TokenFormat token_format(std::string_view name);
std::string_view name_of(TokenFormat format);

struct TokenFileOptions {
  TokenFormat format = TokenFormat::automatic;
  std::int64_t vocab_size = 0;  ///< 0: what the side file says, or unknown
  /// A file of up to this many bytes is checked against the vocabulary when it is opened, a larger one as it is read.
  std::int64_t scan_limit = std::int64_t{1} << 28;
  /// Encodes files that hold text (holds_text) when they are opened, tokens in memory; null: their bytes are the tokens.
  const Tokenizer* text_tokenizer = nullptr;
};

/// What NAME.meta.json (beside NAME.bin) says of a token file.
struct TokenFileMeta {
  TokenFormat format = TokenFormat::u16;
  std::int64_t vocab_size = 0;
  std::int64_t tokens = 0;
  std::int64_t text_bytes = 0;
  std::string tokenizer;  ///< file name in the same folder; empty: none
};

/// Throws UserError (one line): missing, empty, unreadable, a size that is no multiple of the element or differs from
/// the header's count, a damaged side file, a token outside the vocabulary.
TokenSourcePtr open_tokens(const std::filesystem::path& path, const TokenFileOptions& options = {});

/// Whether open_tokens would take a file for text: nothing says what its tokens are. Throws UserError as it does.
bool holds_text(const std::filesystem::path& path, const TokenFileOptions& options);

/// data/train.bin -> data/train.meta.json
std::filesystem::path meta_path(const std::filesystem::path& path);
/// False when there is no side file. Throws UserError on a damaged one.
bool read_meta(const std::filesystem::path& path, TokenFileMeta& meta);
/// Atomic; throws IoError.
void write_meta(const std::filesystem::path& path, const TokenFileMeta& meta,
                const FileSystem& files = FileSystem::posix());

}  // namespace weft
