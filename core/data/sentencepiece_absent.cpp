#include "core/base/error.hpp"
#include "core/data/sentencepiece_tokenizer.hpp"

namespace weft::detail {

TokenizerPtr train_sentencepiece(const TokenizerTraining& training, const TextPieces&) {
  fail_user(
      "tokenizer '{}' needs sentencepiece, which this build of weft lacks: use bytes or words, or install "
      "libsentencepiece-dev and build again",
      name_of(training.kind));
}

TokenizerPtr parse_sentencepiece(const std::string& file, std::string) {
  fail_user(
      "file '{}' is not one of weft's tokenizers, and this build lacks sentencepiece: install libsentencepiece-dev "
      "and build again",
      file);
}

}  // namespace weft::detail
