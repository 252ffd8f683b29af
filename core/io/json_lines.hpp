// JSON lines: one object a line, appended whole; a torn last line (a crash in the middle of a write) is ignored.
#pragma once
#include <cstdint>
#include <filesystem>
#include <functional>
#include <nlohmann/json_fwd.hpp>

namespace weft {

/// Appends to a file. One writer at a time; readers may follow along.
class JsonLinesWriter {
 public:
  /// Makes the file, or goes on after its last whole line (a torn one is cut off). Throws IoError.
  explicit JsonLinesWriter(std::filesystem::path path);
  ~JsonLinesWriter();
  JsonLinesWriter(const JsonLinesWriter&) = delete;
  JsonLinesWriter& operator=(const JsonLinesWriter&) = delete;

  /// One write to the system a line, so readers and later runs see it whole. Numbers that are not finite become null.
  /// Throws IoError; what got onto the disk of a failed line is taken back.
  void append(const nlohmann::json& object);
  /// Waits until all lines are on the disk.
  void sync();

 private:
  std::filesystem::path path_;
  std::int64_t size_ = 0;
  int descriptor_ = -1;
};

/// Calls `each` for every whole line in order. Throws UserError when the file is missing or a whole line is no JSON.
void read_json_lines(const std::filesystem::path& path, const std::function<void(const nlohmann::json&)>& each);

/// Rewrites the file atomically with the lines that `keep` accepts (on resume: steps up to the checkpoint's). A missing
/// file stays missing.
void filter_json_lines(const std::filesystem::path& path, const std::function<bool(const nlohmann::json&)>& keep);

}  // namespace weft
