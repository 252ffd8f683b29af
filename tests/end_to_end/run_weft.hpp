// Runs programs, above all the built `weft`, and takes what they say.
#pragma once
#include <filesystem>
#include <string>
#include <vector>

namespace weft::test {

struct Outcome {
  int status = -1;  ///< exit status, or 128 + signal
  std::string out;
  std::string err;

  /// Lines of standard error.
  std::vector<std::string> lines() const;
};

/// Standard input is empty. A program that takes longer than `seconds` is killed with its children.
Outcome run_program(const std::vector<std::string>& words, double seconds = 120);

/// The program of this build.
Outcome run_weft(std::vector<std::string> arguments, double seconds = 120);
std::string weft_path();

/// A folder that goes when it does.
class TemporaryFolder {
 public:
  TemporaryFolder();
  ~TemporaryFolder();
  TemporaryFolder(const TemporaryFolder&) = delete;
  TemporaryFolder& operator=(const TemporaryFolder&) = delete;
  std::string operator/(const std::string& name) const { return (path_ / name).string(); }
  const std::filesystem::path& path() const { return path_; }
  /// Writes a file and returns its path.
  std::string write(const std::string& name, const std::string& content) const;
  /// Names below it, in order.
  std::vector<std::string> entries() const;

 private:
  std::filesystem::path path_;
};

}  // namespace weft::test
