#include "tests/fuzz/exercise.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  weft::test::exercise_tokenizer(std::as_bytes(std::span(data, size)));
  return 0;
}
