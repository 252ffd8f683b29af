// A ring of the latest collectives in a small memory-mapped file: it stays readable after kill -9, because the kernel,
// not the process, writes the pages back.
#pragma once
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "parallel/comm/collective.hpp"

namespace weft {

struct FlightEntry {
  std::uint64_t sequence = 0;
  CollectiveKind kind = CollectiveKind::barrier;
  std::string group;
  std::uint64_t bytes = 0;
  std::int64_t begun_ns = 0;  ///< since the epoch
  std::int64_t ended_ns = 0;  ///< 0 while it is in flight
  std::int64_t step = -1;
  std::string phase;
};

struct FlightRecord {
  int rank = 0;
  std::string host;
  int pid = 0;
  std::int64_t step = -1;
  std::string phase;
  std::int64_t heartbeat_ns = 0;     ///< since the epoch
  std::vector<FlightEntry> entries;  ///< oldest first
};

/// Writes the record. Not thread-safe; CommLog guards it.
class FlightRecorder {
 public:
  static constexpr std::size_t capacity = 1024;

  /// Creates the file; throws UserError if that fails.
  FlightRecorder(const std::filesystem::path& path, int rank, std::string_view host);
  ~FlightRecorder();
  FlightRecorder(const FlightRecorder&) = delete;
  FlightRecorder& operator=(const FlightRecorder&) = delete;

  void set_step(std::int64_t step);
  void set_phase(std::string_view phase);
  void beat();
  /// Returns the entry's index for end().
  std::uint64_t begin(const Collective& what, std::string_view group, std::uint64_t bytes);
  void end(std::uint64_t index);

 private:
  struct File;
  File* file_ = nullptr;
};

/// Throws UserError if `path` is not a flight record.
FlightRecord read_flight_record(const std::filesystem::path& path);

/// What the rank was doing last: "step 24, backward, in reduce_scatter #510 of tp (3072 bytes)".
std::string doing_text(const FlightRecord& record);

/// Lines for people: what the rank was doing, collectives in flight, and the last `last` that ended.
std::string format_flight_record(const FlightRecord& record, std::size_t last = 8);

}  // namespace weft
