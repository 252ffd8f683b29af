#include "core/data/token_writer.hpp"

#include <cstring>

#include "core/data/llmc_header.hpp"

namespace weft {

TokenWriter::TokenWriter(std::filesystem::path path, std::int64_t vocab_size, std::string tokenizer,
                         const FileSystem& files)
    : files_(files), file_(std::move(path), files) {
  meta_.format = vocab_size <= 65536 ? TokenFormat::u16 : TokenFormat::u32;
  meta_.vocab_size = vocab_size;
  meta_.tokenizer = std::move(tokenizer);
  const auto header = detail::make_llmc_header(meta_.format, 0);
  file_.write(std::as_bytes(std::span(header)));
}

template <class Element>
void TokenWriter::append(std::span<const std::int32_t> tokens) {
  buffer_.resize(tokens.size() * sizeof(Element));
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    WEFT_CHECK(tokens[i] >= 0 && tokens[i] < meta_.vocab_size, "'{}': token {} is outside the vocabulary of {}",
               file_.path().string(), tokens[i], meta_.vocab_size);
    const auto token = static_cast<Element>(tokens[i]);
    std::memcpy(buffer_.data() + i * sizeof(Element), &token, sizeof(Element));
  }
  file_.write(buffer_);
}

void TokenWriter::write(std::span<const std::int32_t> tokens, std::int64_t text_bytes) {
  if (meta_.format == TokenFormat::u16)
    append<std::uint16_t>(tokens);
  else
    append<std::uint32_t>(tokens);
  meta_.tokens += static_cast<std::int64_t>(tokens.size());
  meta_.text_bytes += text_bytes;
}

void TokenWriter::commit() {
  const auto header = detail::make_llmc_header(meta_.format, meta_.tokens);
  file_.rewrite(0, std::as_bytes(std::span(header)));
  file_.commit();
  write_meta(file_.path(), meta_, files_);
}

}  // namespace weft
