// One run at a time in a run's folder.
#pragma once
#include <filesystem>

namespace weft {

/// Held until it is destroyed or the process ends, however it ends. File systems without locks are let pass.
class RunLock {
 public:
  /// `folder` exists. Waits up to `patience_seconds` for another process to let go of it (a killed job's ranks may take a
  /// moment to die), then throws UserError.
  RunLock(const std::filesystem::path& folder, double patience_seconds);
  ~RunLock();
  RunLock(const RunLock&) = delete;
  RunLock& operator=(const RunLock&) = delete;

 private:
  int descriptor_ = -1;
};

}  // namespace weft
