// Word-level tokens by WikiText's convention: white space parts words, <eos> ends a line, rare words are <unk>.
#pragma once
#include <string>
#include <vector>

#include "core/data/tokenizer.hpp"

namespace weft::detail {

TokenizerPtr train_words(const TokenizerTraining& training, const TextPieces& text);
/// `words` in the order of their tokens. Throws UserError, naming `file`, unless they begin with <unk> and <eos> and
/// are all different.
TokenizerPtr word_tokenizer(const std::string& file, std::vector<std::string> words);

}  // namespace weft::detail
