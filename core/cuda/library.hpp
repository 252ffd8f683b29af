// Vendors' libraries, opened when the program runs: Weft is built without them and runs where they are missing.
#pragma once
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/cuda/handle.hpp"

namespace weft::cuda {

/// Folders to look in after the dynamic loader's own: /usr/local/cuda's, then the nvidia/*/lib of each given Python
/// site-packages folder, by name.
std::vector<std::filesystem::path> library_folders(std::span<const std::filesystem::path> site_packages = {});

/// "13.1.2" of 130102, as cuBLASLt, cuDNN and NCCL number their versions.
std::string version_text(std::size_t version);

class Library {
 public:
  /// Opens the first of `names` (the best first) that can be opened, each as it is and then in each folder. Throws
  /// Error that says what was tried and why it failed.
  Library(std::string_view what, std::span<const std::string_view> names,
          std::span<const std::filesystem::path> folders);

  /// What was opened: a name or a path.
  const std::string& path() const { return path_; }

  /// The function of this name. Throws Error if the library lacks it.
  template <class Function>
  Function* function(const char* name) const {
    return reinterpret_cast<Function*>(symbol(name));
  }

 private:
  struct Close {
    void operator()(void* handle) const;
  };

  void* symbol(const char* name) const;

  std::string path_;
  Handle<void*, Close> handle_;
};

}  // namespace weft::cuda
