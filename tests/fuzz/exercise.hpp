// What the fuzz targets and the mutation tests do with hostile bytes: everything a reader can do. Anything but success
// or UserError is a defect.
#pragma once
#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "core/base/error.hpp"
#include "core/data/byte_level_bpe.hpp"
#include "core/data/token_file.hpp"
#include "core/io/checksum.hpp"
#include "core/io/safetensors.hpp"

namespace weft::test {

/// True when the file was accepted.
inline bool exercise_safetensors(std::span<const std::byte> bytes) {
  try {
    const SafetensorsReader reader("input", bytes);
    std::size_t covered = 0;
    for (const SafetensorsEntry& entry : reader.entries()) {
      const std::span<const std::byte> data = reader.bytes(entry);
      checksum(data);
      covered += data.size();
      try {
        const View view = reader.view(entry.name);
        WEFT_CHECK(view.bytes() == data.size() && view.shape == entry.shape);
        checksum({static_cast<const std::byte*>(view.data), view.bytes()});
      } catch (const UserError&) {  // a type without a DType
      }
    }
    WEFT_CHECK(covered <= bytes.size());
    return true;
  } catch (const UserError& error) {
    WEFT_CHECK(std::string(error.what()).find('\n') == std::string::npos, "more than one line: {}", error.what());
    return false;
  }
}

/// The same for a tokenizer.json of byte-level BPE: what is accepted gives every text back.
inline bool exercise_tokenizer(std::span<const std::byte> bytes) {
  const std::string text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  try {
    const TokenizerPtr tokenizer = detail::byte_level_bpe("input", text);
    for (const std::string& sample :
         {std::string("It's größer:\n\n 12345 <|endoftext|> \xff\xe4  a"), text.substr(0, 300)}) {
      std::vector<std::int32_t> tokens;
      tokenizer->encode(sample, tokens);
      for (const std::int32_t token : tokens) WEFT_CHECK(token >= 0 && token < tokenizer->vocab_size());
      WEFT_CHECK(tokenizer->decode(tokens) == sample);
    }
    return true;
  } catch (const UserError& error) {
    WEFT_CHECK(std::string(error.what()).find('\n') == std::string::npos, "more than one line: {}", error.what());
    return false;
  }
}

/// The same for a token file, in every format.
inline void exercise_token_file(std::span<const std::byte> bytes) {
  const int descriptor = ::memfd_create("tokens", MFD_CLOEXEC);
  WEFT_CHECK(descriptor >= 0);
  WEFT_CHECK(::write(descriptor, bytes.data(), bytes.size()) == static_cast<ssize_t>(bytes.size()));
  for (const TokenFormat format : {TokenFormat::automatic, TokenFormat::bytes, TokenFormat::u16, TokenFormat::u32}) {
    for (const std::int64_t vocab_size : {0, 200}) {
      try {
        const TokenSourcePtr tokens =
            open_tokens("/proc/self/fd/" + std::to_string(descriptor), {format, vocab_size, 64});
        std::vector<std::int32_t> all(static_cast<std::size_t>(tokens->size()));
        tokens->read(0, all);
        for (const std::int32_t token : all) WEFT_CHECK(token >= 0 && (vocab_size == 0 || token < vocab_size));
      } catch (const UserError&) {
      }
    }
  }
  ::close(descriptor);
}

}  // namespace weft::test
