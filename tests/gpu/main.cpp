// weft_gpu_test: every operation and every model on the GPU against the float64 oracle and the CPU backend. A machine
// without a GPU fails it: who calls it wants to know what a GPU does.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include "core/base/error.hpp"
#include "tests/gpu/device_under_test.hpp"

int main(int count, char** arguments) {
  testing::InitGoogleTest(&count, arguments);
  if (!testing::GTEST_FLAG(list_tests)) {
    try {
      const weft::DeviceFacts facts = weft::test::open_gpu()->facts();
      fmt::print("{} {}\n", facts.name, facts.pci);
      for (const std::string& library : facts.libraries) fmt::print("  {}\n", library);
    } catch (const weft::Error& error) {
      fmt::print(stderr, "weft_gpu_test: no GPU to test: {}\n", error.what());
      return 1;
    }
  }
  return RUN_ALL_TESTS();
}
