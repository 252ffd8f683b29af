#include "parallel/comm/flight_recorder.hpp"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <ctime>
#include <fstream>
#include <memory>

#include "core/base/clock.hpp"

namespace weft {
namespace {

constexpr std::array<char, 8> magic = {'w', 'e', 'f', 't', 'f', 'l', 't', '1'};

template <std::size_t N>
void put(std::array<char, N>& field, std::string_view text) {
  const auto length = std::min(text.size(), N - 1);
  std::memcpy(field.data(), text.data(), length);
  field[length] = '\0';
}

template <std::size_t N>
std::string get(const std::array<char, N>& field) {
  return {field.data(), strnlen(field.data(), N)};
}

struct Entry {
  std::uint64_t sequence;
  std::uint64_t bytes;
  std::int64_t begun_ns;
  std::int64_t ended_ns;
  std::int64_t step;
  std::array<char, 15> group;
  std::uint8_t kind;
  std::array<char, 16> phase;
};

struct Layout {
  std::array<char, 8> magic;
  std::int32_t rank;
  std::int32_t pid;
  std::int64_t step;
  std::int64_t heartbeat_ns;
  std::array<char, 64> host;
  std::array<char, 16> phase;
  std::uint64_t begun;  ///< entries ever written
  std::array<Entry, FlightRecorder::capacity> entries;
};

}  // namespace

struct FlightRecorder::File : Layout {};

FlightRecorder::FlightRecorder(const std::filesystem::path& path, int rank, std::string_view host) {
  const int handle = ::open(path.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (handle < 0) fail_user("cannot create the flight record {}: {}", path.string(), std::strerror(errno));
  // Blocks are reserved now: a full disk must show here as an error and not later as a bus error.
  int error = ::posix_fallocate(handle, 0, sizeof(File));
  void* memory = MAP_FAILED;
  if (error == 0) {
    memory = ::mmap(nullptr, sizeof(File), PROT_READ | PROT_WRITE, MAP_SHARED, handle, 0);
    if (memory == MAP_FAILED) error = errno;
  }
  ::close(handle);
  if (error != 0) fail_user("cannot write the flight record {}: {}", path.string(), std::strerror(error));
  file_ = static_cast<File*>(memory);
  file_->rank = rank;
  file_->pid = static_cast<std::int32_t>(::getpid());
  file_->step = -1;
  put(file_->host, host);
  file_->magic = magic;
}

FlightRecorder::~FlightRecorder() { ::munmap(file_, sizeof(File)); }

void FlightRecorder::set_step(std::int64_t step) { file_->step = step; }
void FlightRecorder::set_phase(std::string_view phase) { put(file_->phase, phase); }
void FlightRecorder::beat() { file_->heartbeat_ns = epoch_nanoseconds(); }

std::uint64_t FlightRecorder::begin(const Collective& what, std::string_view group, std::uint64_t bytes) {
  const std::uint64_t index = file_->begun;
  Entry& entry = file_->entries[index % capacity];
  entry.sequence = what.sequence;
  entry.kind = static_cast<std::uint8_t>(what.kind);
  entry.bytes = bytes;
  entry.begun_ns = epoch_nanoseconds();
  entry.ended_ns = 0;
  entry.step = file_->step;
  put(entry.group, group);
  entry.phase = file_->phase;
  // A reader after kill -9 must not see an entry before its contents.
  std::atomic_ref(file_->begun).store(index + 1, std::memory_order_release);
  return index;
}

void FlightRecorder::end(std::uint64_t index) {
  if (file_->begun - index <= capacity) file_->entries[index % capacity].ended_ns = epoch_nanoseconds();
}

FlightRecord read_flight_record(const std::filesystem::path& path) {
  auto layout = std::make_unique<Layout>();
  std::ifstream file(path, std::ios::binary);
  if (!file) fail_user("cannot read the flight record {}", path.string());
  if (!file.read(reinterpret_cast<char*>(layout.get()), sizeof(Layout)) || layout->magic != magic)
    fail_user("{} is not a flight record", path.string());
  FlightRecord record;
  record.rank = layout->rank;
  record.host = get(layout->host);
  record.pid = layout->pid;
  record.step = layout->step;
  record.phase = get(layout->phase);
  record.heartbeat_ns = layout->heartbeat_ns;
  const std::uint64_t count = std::min<std::uint64_t>(layout->begun, FlightRecorder::capacity);
  for (std::uint64_t index = layout->begun - count; index < layout->begun; ++index) {
    const Entry& entry = layout->entries[index % FlightRecorder::capacity];
    if (entry.kind >= collective_kind_count) fail_user("{} is a damaged flight record", path.string());
    record.entries.push_back({entry.sequence, static_cast<CollectiveKind>(entry.kind), get(entry.group), entry.bytes,
                              entry.begun_ns, entry.ended_ns, entry.step, get(entry.phase)});
  }
  return record;
}

std::string doing_text(const FlightRecord& record) {
  std::string text = fmt::format("step {}, {}", record.step, record.phase);
  const auto named = [](const FlightEntry& entry) {
    return fmt::format("{} #{} of {} ({} bytes)", name_of(entry.kind), entry.sequence, entry.group, entry.bytes);
  };
  const auto oldest = std::ranges::find(record.entries, 0, &FlightEntry::ended_ns);
  if (oldest != record.entries.end()) return text + ", in " + named(*oldest);
  text += ", in no collective";
  if (!record.entries.empty()) text += ", the last was " + named(record.entries.back());
  return text;
}

std::string format_flight_record(const FlightRecord& record, std::size_t last) {
  const auto clock_time = [](std::int64_t ns) {
    const std::time_t seconds = ns / 1'000'000'000;
    std::tm parts{};
    ::localtime_r(&seconds, &parts);
    return fmt::format("{:02}:{:02}:{:02}.{:03}", parts.tm_hour, parts.tm_min, parts.tm_sec, ns / 1'000'000 % 1000);
  };
  const auto line = [&](const FlightEntry& entry) {
    const std::string name = fmt::format("{} #{} of {}", name_of(entry.kind), entry.sequence, entry.group);
    const std::string time =
        entry.ended_ns == 0 ? std::string("in flight")
                            : fmt::format("{:.3f} ms", static_cast<double>(entry.ended_ns - entry.begun_ns) * 1e-6);
    return fmt::format("  {}  {:<32} {:>12} bytes  {:>12}  step {} {}\n", clock_time(entry.begun_ns), name, entry.bytes,
                       time, entry.step, entry.phase);
  };
  std::string text = fmt::format("rank {} on {}, pid {}: step {}, {}; last heartbeat {}\n", record.rank, record.host,
                                 record.pid, record.step, record.phase, clock_time(record.heartbeat_ns));
  std::vector<const FlightEntry*> shown;
  for (auto entry = record.entries.rbegin(); entry != record.entries.rend(); ++entry) {
    if (entry->ended_ns == 0) {
      shown.push_back(&*entry);
    } else if (last > 0) {
      shown.push_back(&*entry);
      --last;
    }
  }
  for (auto entry = shown.rbegin(); entry != shown.rend(); ++entry) text += line(**entry);
  return text;
}

}  // namespace weft
