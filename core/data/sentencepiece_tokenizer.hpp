// The sentencepiece tokenizer, kept behind two functions: a build without the library compiles
// sentencepiece_absent.cpp.
#pragma once
#include <string>

#include "core/data/tokenizer.hpp"

namespace weft::detail {

/// Throws UserError when the text does not serve for the vocabulary asked for.
TokenizerPtr train_sentencepiece(const TokenizerTraining& training, const TextPieces& text);
/// `file` names the model in messages. Throws UserError when `model` is no sentencepiece model.
TokenizerPtr parse_sentencepiece(const std::string& file, std::string model);

}  // namespace weft::detail
