// For tests: a disk that takes its time.
#pragma once
#include <chrono>
#include <thread>

#include "core/io/file_system.hpp"

namespace weft {

/// Each sync of a file takes so many seconds more.
class SlowFileSystem final : public FileSystem {
 public:
  explicit SlowFileSystem(double seconds) : seconds_(seconds) {}
  void sync(int descriptor, const std::filesystem::path& path) const override {
    std::this_thread::sleep_for(std::chrono::duration<double>(seconds_));
    FileSystem::sync(descriptor, path);
  }

 private:
  double seconds_;
};

}  // namespace weft
