#include <cstdint>

#include "tests/fuzz/exercise_config.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  weft::test::exercise_config({reinterpret_cast<const char*>(data), size});
  return 0;
}
