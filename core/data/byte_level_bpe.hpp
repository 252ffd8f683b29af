// Byte-level BPE as Hugging Face's tokenizer.json holds it: GPT-2's and Llama 3's tokenizers.
#pragma once
#include <string>

#include "core/data/tokenizer.hpp"

namespace weft::detail {

/// Encodes as the package `tokenizers` does without added special tokens (no begin of text); special tokens that stand in the
/// text are recognised. Bytes that are not UTF-8 are tokens, too, so that decode() gives every text back. Throws UserError, one
/// line with file, field, what was found and what would be right, for what it would not follow (a normalizer, another
/// model or pre-tokenizer).
TokenizerPtr byte_level_bpe(const std::string& file, std::string text);

/// What its kind() says.
inline constexpr std::string_view byte_level_kind = "byte-level bpe";

/// A tokenizer.json of bytes: token i is byte i.
std::string byte_level_json();

}  // namespace weft::detail
