// weft test: the tests of the build folder that this program lies in.
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <filesystem>

#include "core/base/error.hpp"
#include "launcher/commands.hpp"

namespace weft {

ExitStatus run_test(std::span<const std::string> arguments) {
  const std::filesystem::path folder = std::filesystem::read_symlink("/proc/self/exe").parent_path();
  if (!std::filesystem::is_regular_file(folder / "CTestTestfile.cmake"))
    fail_user("{} is not a build folder with tests; `./weft test` in the source tree builds and runs them",
              folder.string());
  std::vector<std::string> words = {"ctest", "--test-dir", folder.string(), "--output-on-failure"};
  words.insert(words.end(), arguments.begin(), arguments.end());
  std::vector<char*> pointers;
  for (std::string& word : words) pointers.push_back(word.data());
  pointers.push_back(nullptr);
  ::execvp(pointers[0], pointers.data());
  fail("cannot run ctest: {}", std::strerror(errno));
}

}  // namespace weft
