#include "core/cuda/library.hpp"

#include <dlfcn.h>

#include <algorithm>

#include "core/base/error.hpp"

namespace weft::cuda {

namespace fs = std::filesystem;

std::vector<fs::path> library_folders(std::span<const fs::path> site_packages) {
  std::vector<fs::path> folders = {"/usr/local/cuda/lib64"};
  for (const fs::path& packages : site_packages) {
    std::vector<fs::path> found;
    std::error_code missing;
    for (const auto& entry : fs::directory_iterator(packages / "nvidia", missing))
      if (fs::path lib = entry.path() / "lib"; fs::is_directory(lib, missing)) found.push_back(std::move(lib));
    std::ranges::sort(found);
    folders.insert(folders.end(), found.begin(), found.end());
  }
  return folders;
}

std::string version_text(std::size_t version) {
  return fmt::format("{}.{}.{}", version / 10000, version / 100 % 100, version % 100);
}

Library::Library(std::string_view what, std::span<const std::string_view> names, std::span<const fs::path> folders) {
  std::string reasons;
  // CUDA's libraries leave threads and exit handlers behind, so their code stays in memory.
  const auto open = [&](std::string path) {
    void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL | RTLD_NODELETE);
    if (!handle) {
      const char* reason = dlerror();
      reasons += fmt::format("\n  {}: {}", path, reason ? reason : "not opened");
      return false;
    }
    handle_ = Handle<void*, Close>(handle);
    path_ = std::move(path);
    return true;
  };
  for (const std::string_view name : names) {
    if (open(std::string(name))) return;
    for (const fs::path& folder : folders) {
      const fs::path path = folder / name;
      std::error_code missing;
      if (!fs::exists(path, missing))
        reasons += fmt::format("\n  {}: not there", path.string());
      else if (open(path.string()))
        return;
    }
  }
  fail("{} cannot be opened; tried{}", what, reasons);
}

void Library::Close::operator()(void* handle) const { dlclose(handle); }

void* Library::symbol(const char* name) const {
  void* found = dlsym(handle_.get(), name);
  WEFT_CHECK(found, "{} has no {}", path_, name);
  return found;
}

}  // namespace weft::cuda
