// A save that goes on beside training: each rank copies what it writes, and a thread of its own writes the copy.
#pragma once
#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "core/kernels/device.hpp"
#include "parallel/checkpoint.hpp"

namespace weft {

class AtomicFolder;

/// Host memory for the copies of one save after another; it grows to the largest and stays.
class SnapshotMemory {
 public:
  /// `device` outlives it.
  explicit SnapshotMemory(Device& device) : device_(device), copied_(device.make_event()) {}
  ~SnapshotMemory();
  SnapshotMemory(const SnapshotMemory&) = delete;
  SnapshotMemory& operator=(const SnapshotMemory&) = delete;

  /// Has the computing queue copy `parts`, as they are when it gets there, and returns where to. The copies before are gone.
  std::vector<View> copy(const std::vector<View>& parts);
  /// Blocks until they are there; from any thread.
  void wait();

 private:
  void reserve(std::size_t bytes);
  Device& device_;
  std::unique_ptr<Event> copied_;
  char* data_ = nullptr;
  std::size_t bytes_ = 0;
};

/// Writes parent/step-NNNNNNNN as save_checkpoint() does, in stages: all ranks write; rank 0 makes the folder appear.
class CheckpointSave {
 public:
  /// Collective over `world`, which with `files` and `memory` outlives it. What is saved may change when it returns. A null
  /// `memory`: nothing is copied, and each stage is worked off by the caller.
  CheckpointSave(Communicator& world, SnapshotMemory* memory, std::filesystem::path parent,
                 const CheckpointTarget& target, RunState state, std::string config,
                 const FileSystem& files = FileSystem::posix());
  /// Waits for this rank's thread. What is not finished leaves nothing.
  ~CheckpointSave();
  CheckpointSave(const CheckpointSave&) = delete;
  CheckpointSave& operator=(const CheckpointSave&) = delete;

  std::int64_t step() const { return state_.step; }
  /// Whether this rank works at the stage.
  bool busy() const { return busy_.load(std::memory_order_acquire); }
  /// Collective: begins the next stage when no rank is busy any more, which it waits for. True: there is none, it is over.
  bool advance();
  /// When it is over: one line on all ranks that says what went wrong; empty on success.
  const std::string& error() const { return error_; }

 private:
  void begin(std::function<std::string()> work);
  /// What the stage's work has said.
  std::string end();

  Communicator& world_;
  const FileSystem& files_;
  RunState state_;
  bool beside_;
  std::unique_ptr<AtomicFolder> folder_;  ///< on rank 0
  std::function<CheckpointIndex(const std::vector<std::string>&)> make_index_;
  enum class Stage : std::uint8_t { writing, appearing, over };
  Stage stage_ = Stage::over;
  std::string error_;
  std::string said_;
  std::atomic<bool> busy_ = false;
  std::thread thread_;
};

}  // namespace weft
