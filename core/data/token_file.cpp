#include "core/data/token_file.hpp"

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <nlohmann/json.hpp>

#include "core/base/error.hpp"
#include "core/data/llmc_header.hpp"
#include "core/io/atomic_file.hpp"
#include "core/io/mapped_file.hpp"

namespace weft {
namespace {

constexpr std::array<std::pair<std::string_view, TokenFormat>, 4> formats = {{{"auto", TokenFormat::automatic},
                                                                              {"bytes", TokenFormat::bytes},
                                                                              {"u16", TokenFormat::u16},
                                                                              {"u32", TokenFormat::u32}}};

std::size_t element_bytes(TokenFormat format) {
  switch (format) {
    case TokenFormat::u16:
      return 2;
    case TokenFormat::u32:
      return 4;
    default:
      return 1;
  }
}

// The map, its format, and where the tokens begin. Files are little-endian; elements may be unaligned.
struct TokenLayout {
  TokenFormat format = TokenFormat::bytes;
  bool text = false;  // bytes, because nothing says otherwise
  std::size_t data_begin = 0;
  std::int64_t tokens = 0;
};

TokenLayout find_layout(const std::string& file, std::span<const std::byte> bytes, TokenFormat asked,
                        const TokenFileMeta* meta, bool is_bin) {
  TokenLayout layout;
  detail::LlmcHeader header;
  if (asked != TokenFormat::bytes) header = detail::parse_llmc_header(file, bytes);
  if (header.present) {
    if (asked != TokenFormat::automatic && asked != header.format)
      fail_user("file '{}': its header says {}-byte tokens, not the format asked for", file,
                element_bytes(header.format));
    layout.format = header.format;
    layout.data_begin = detail::llmc_header_bytes;
  } else if (asked != TokenFormat::automatic) {
    layout.format = asked;
  } else if (meta != nullptr) {
    layout.format = meta->format;
  } else {
    layout.format = is_bin ? TokenFormat::u16 : TokenFormat::bytes;
    layout.text = !is_bin;
  }
  const std::size_t element = element_bytes(layout.format);
  const std::size_t data_bytes = bytes.size() - layout.data_begin;
  if (data_bytes % element != 0)
    fail_user("file '{}': {} bytes of tokens are no multiple of the {} bytes a token takes", file, data_bytes, element);
  layout.tokens = static_cast<std::int64_t>(data_bytes / element);
  if (header.present && header.tokens != layout.tokens)
    fail_user("file '{}': the header says {} tokens, the file holds {}", file, header.tokens, layout.tokens);
  if (layout.tokens == 0) fail_user("file '{}' has no tokens", file);
  return layout;
}

class TokenFile final : public TokenSource {
 public:
  TokenFile(MappedFile map, const TokenLayout& layout, std::int64_t vocab_size, std::int64_t text_bytes)
      : name_(map.path().string()),
        map_(std::move(map)),
        format_(layout.format),
        size_(layout.tokens),
        vocab_size_(vocab_size),
        text_bytes_(text_bytes),
        data_(map_.bytes().data() + layout.data_begin) {}

  const std::string& name() const override { return name_; }
  std::int64_t size() const override { return size_; }
  std::int64_t vocab_size() const override { return vocab_size_; }
  std::int64_t text_bytes() const override { return text_bytes_; }

  void read_at_random() const { map_.advise(Access::random); }

  void read(std::int64_t begin, std::span<std::int32_t> out) const override {
    const auto count = static_cast<std::int64_t>(out.size());
    WEFT_CHECK(begin >= 0 && begin <= size_ - count, "{}: tokens [{}, {}) of {}", name_, begin, begin + count, size_);
    switch (format_) {
      case TokenFormat::u16:
        return copy<std::uint16_t>(begin, out);
      case TokenFormat::u32:
        return copy<std::uint32_t>(begin, out);
      default:
        return copy<std::uint8_t>(begin, out);
    }
  }

 private:
  template <class Element>
  void copy(std::int64_t begin, std::span<std::int32_t> out) const {
    const std::byte* from = data_ + static_cast<std::size_t>(begin) * sizeof(Element);
    // Where no vocabulary is known a token must still fit an int32.
    const std::uint32_t limit = vocab_size_ > 0 ? static_cast<std::uint32_t>(vocab_size_)
                                                : std::uint32_t{std::numeric_limits<std::int32_t>::max()};
    std::uint32_t largest = 0;
    for (std::size_t i = 0; i < out.size(); ++i) {
      Element token;
      std::memcpy(&token, from + i * sizeof(Element), sizeof(Element));
      largest = std::max(largest, std::uint32_t{token});
      out[i] = static_cast<std::int32_t>(token);
    }
    if (largest >= limit) [[unlikely]]
      refuse(begin, out, limit);
  }

  [[noreturn]] void refuse(std::int64_t begin, std::span<const std::int32_t> tokens, std::uint32_t limit) const {
    const auto found = std::find_if(tokens.begin(), tokens.end(),
                                    [&](std::int32_t token) { return static_cast<std::uint32_t>(token) >= limit; });
    fail_user("file '{}': token {} at position {} is outside the vocabulary of {}", name_,
              static_cast<std::uint32_t>(*found), begin + (found - tokens.begin()), limit);
  }

  std::string name_;
  MappedFile map_;
  TokenFormat format_;
  std::int64_t size_;
  std::int64_t vocab_size_;
  std::int64_t text_bytes_;
  const std::byte* data_;
};

std::string_view text_of(const MappedFile& map) {
  return {reinterpret_cast<const char*>(map.bytes().data()), map.bytes().size()};
}

struct OpenedFile {
  MappedFile map;
  TokenFileMeta meta;
  TokenLayout layout;
};

OpenedFile open_layout(const std::filesystem::path& path, const TokenFileOptions& options) {
  OpenedFile opened{MappedFile(path), {}, {}};
  const std::string file = path.string();
  if (opened.map.bytes().empty()) fail_user("file '{}' is empty", file);
  TokenFileMeta& meta = opened.meta;
  const bool has_meta = options.format != TokenFormat::bytes && read_meta(path, meta);
  opened.layout =
      find_layout(file, opened.map.bytes(), options.format, has_meta ? &meta : nullptr, path.extension() == ".bin");
  const TokenLayout& layout = opened.layout;
  if (has_meta && (meta.tokens != layout.tokens || meta.format != layout.format))
    fail_user("file '{}' holds {} tokens of format {}, but '{}' says {} of {}: prepare it again", file, layout.tokens,
              name_of(layout.format), meta_path(path).string(), meta.tokens, name_of(meta.format));
  return opened;
}

}  // namespace

TokenFormat token_format(std::string_view name) {
  for (const auto& [known, format] : formats)
    if (known == name) return format;
  fail_user("token format '{}' is unknown: auto, bytes, u16 or u32", name);
}

std::string_view name_of(TokenFormat format) {
  for (const auto& [name, known] : formats)
    if (known == format) return name;
  fail("token format {} has no name", static_cast<int>(format));
}

bool holds_text(const std::filesystem::path& path, const TokenFileOptions& options) {
  return open_layout(path, options).layout.text;
}

TokenSourcePtr open_tokens(const std::filesystem::path& path, const TokenFileOptions& options) {
  auto [map, meta, layout] = open_layout(path, options);
  const std::string file = path.string();
  if (layout.text && options.text_tokenizer) return encode_text(file, text_of(map), *options.text_tokenizer);
  const bool is_bytes = layout.format == TokenFormat::bytes;
  const std::int64_t declared = is_bytes ? 256 : meta.vocab_size;
  if (options.vocab_size > std::numeric_limits<std::int32_t>::max())
    fail_user("file '{}': a vocabulary of {} is above the limit of {}", file, options.vocab_size,
              std::numeric_limits<std::int32_t>::max());
  auto tokens =
      std::make_shared<TokenFile>(std::move(map), layout, options.vocab_size > 0 ? options.vocab_size : declared,
                                  is_bytes ? layout.tokens : meta.text_bytes);
  const bool can_exceed = !(is_bytes && tokens->vocab_size() >= 256);
  const auto bytes = layout.tokens * static_cast<std::int64_t>(element_bytes(layout.format));
  if (can_exceed && tokens->vocab_size() > 0 && bytes <= options.scan_limit) scan_vocab(*tokens);
  tokens->read_at_random();
  return tokens;
}

std::filesystem::path meta_path(const std::filesystem::path& path) {
  std::filesystem::path meta = path;
  return meta.replace_extension(".meta.json");
}

bool read_meta(const std::filesystem::path& path, TokenFileMeta& meta) {
  const std::filesystem::path side = meta_path(path);
  // train.meta.json is of train.bin, not of a train.txt beside it.
  if (path.extension() != ".bin" || !std::filesystem::exists(side)) return false;
  const MappedFile map(side);
  const nlohmann::json json = nlohmann::json::parse(text_of(map), nullptr, false);
  try {
    meta.format = token_format(json.at("format").get<std::string>());
    meta.vocab_size = json.at("vocab_size").get<std::int64_t>();
    meta.tokens = json.at("tokens").get<std::int64_t>();
    meta.text_bytes = json.at("text_bytes").get<std::int64_t>();
    meta.tokenizer = json.at("tokenizer").get<std::string>();
  } catch (const nlohmann::json::exception&) {
    fail_user("file '{}' is damaged: it should hold format, vocab_size, tokens, text_bytes and tokenizer",
              side.string());
  }
  if (meta.vocab_size < 0 || meta.vocab_size > std::numeric_limits<std::int32_t>::max() || meta.text_bytes < 0)
    fail_user("file '{}' is damaged: vocab_size {}, text_bytes {}", side.string(), meta.vocab_size, meta.text_bytes);
  return true;
}

void write_meta(const std::filesystem::path& path, const TokenFileMeta& meta, const FileSystem& files) {
  nlohmann::ordered_json json;
  json["format"] = name_of(meta.format);
  json["vocab_size"] = meta.vocab_size;
  json["tokens"] = meta.tokens;
  json["text_bytes"] = meta.text_bytes;
  json["tokenizer"] = meta.tokenizer;
  write_file_atomic(meta_path(path), json.dump(2) + "\n", files);
}

}  // namespace weft
